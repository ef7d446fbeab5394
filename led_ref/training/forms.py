"""The forms of a training's settings: what a value must look like, in words and as a test, and in which type it is kept.

>>> GLOBAL.parse("0,<doc-sep>"), GLOBAL.fits("last")
((0, '<doc-sep>'), False)
"""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from led_ref.files.json_file import fits_float

GLOBAL_NAMES = ("none", "first", "all", "question", "separators")


@dataclass(frozen=True)
class Form:
    """What a value must look like.

    Args:
        wanted: the form in words: "it must be ...".
        fits: whether a value has this form.
        convert: a value that fits, in the one type that is kept.
        parse: makes a value of a word of the command line; None: the option has no word, it says True (or False).
        choices: all values, if they are few.
    """

    wanted: str
    fits: Callable[[Any], bool]
    convert: Callable[[Any], Any]
    parse: Callable[[str], Any] | None
    choices: tuple[str, ...] = ()


def is_whole(value: object) -> bool:
    """Whether it is a whole number, Python's or NumPy's, which is not imported for it; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def whole(least: int) -> Form:
    """A whole number of at least `least`."""

    def fits(value: object) -> bool:
        return is_whole(value) and value >= least  # type: ignore[operator]

    return Form(f"a whole number of at least {least}", fits, int, int)


def number(wanted: str, inside: Callable[[float], bool]) -> Form:
    """A finite number that lies inside; `wanted` says where that is."""

    def fits(value: object) -> bool:
        is_one = isinstance(value, Real) and not isinstance(value, bool)
        return is_one and fits_float(value) and inside(value)  # type: ignore[arg-type]

    return Form(wanted, fits, float, float)


def one_of(*words: str) -> Form:
    """One of some words."""
    return Form(" or ".join(words), lambda value: isinstance(value, str) and value in words, str, str, words)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_global(value: object) -> bool:
    if isinstance(value, (list, tuple)) and value:
        whole = [one for one in value if is_whole(one) and one >= 0]
        return len(whole) + sum(map(_is_text, value)) == len(value) and len(set(value)) == len(value)
    return isinstance(value, str) and value in GLOBAL_NAMES


def _parse_global(word: str) -> Any:
    """A name; or positions and tokens, commas between."""
    if word in GLOBAL_NAMES:
        return word
    return tuple(int(one) if one.isascii() and one.isdecimal() else one for one in word.split(","))


ABOVE_0 = number("a number above 0", lambda value: value > 0)
FROM_0 = number("a number of at least 0", lambda value: value >= 0)
PART = number("a number from 0 to below 1", lambda value: 0 <= value < 1)
GLOBAL = Form(
    f"{', '.join(GLOBAL_NAMES)}, or a list of positions and tokens, each once",
    _is_global,
    lambda value: (
        value if isinstance(value, str) else tuple(one if isinstance(one, str) else int(one) for one in value)
    ),
    _parse_global,
)
YES_OR_NO = Form("True or False", lambda value: type(value).__name__ in ("bool", "bool_"), bool, None)  # NumPy's, too
NAME = Form("a text that is not empty", _is_text, str, str)
NAMES = Form(
    "a list of names",
    lambda value: isinstance(value, (list, tuple)) and all(map(_is_text, value)),
    tuple,
    lambda word: tuple(word.split(",")),
)
