"""Value forms of the generation settings: what a value may look like, in words and as a function that reads it.

`read` turns a value into the one type that the searches work with (Python's numbers and tuples) and raises ValueError for
any other; `checks.py` makes the message of it. `settings.py` says which setting has which form.

    >>> RUNS_OF_IDS.read([[5], [np.int64(6), 7]])
    ((5,), (6, 7))
    >>> BIASES.read({(5, 6): -1})
    (((5, 6), -1.0),)
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

IdTuple = tuple[int, ...]


@dataclass(frozen=True)
class Form:
    """What a value must look like.

    Args:
        wanted: the form in words: "it must be ...".
        read: returns the value as Python's int, float, bool, str or tuples of them; ValueError for another form.
        holds_ids: whether it consists of token ids, all of which must lie in the model's vocabulary.
    """

    wanted: str
    read: Callable[[Any], Any]
    holds_ids: bool = False


def is_integer(value: object) -> bool:
    """Whether it is a whole number, Python's or NumPy's; True and False are not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is a finite number, Python's or NumPy's; True and False are not."""
    is_one = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return is_one and math.isfinite(value)  # type: ignore[arg-type]


def _require(fits: bool) -> None:
    if not fits:
        raise ValueError


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple, np.ndarray))


# ---- numbers, True and False, words ---------------------------------------------------------------------------------


def integer(least: int) -> Form:
    """A whole number of at least `least`."""

    def read(value: Any) -> int:
        _require(is_integer(value) and value >= least)
        return int(value)

    return Form(f"a whole number of at least {least}", read)


def number(wanted: str, fits: Callable[[float], bool]) -> Form:
    """A finite number for which `fits` is True."""

    def read(value: Any) -> float:
        _require(is_number(value) and fits(value))
        return float(value)

    return Form(wanted, read)


def above_0(wanted: str) -> Form:
    """A number above 0."""
    return number(wanted, lambda value: value > 0)


def _yes_or_no(value: Any) -> bool:
    _require(isinstance(value, (bool, np.bool_)))
    return bool(value)


def _early_stopping(value: Any) -> bool | str:
    return "never" if isinstance(value, str) and value == "never" else _yes_or_no(value)


def one_of(*words: str) -> Form:
    """One of several words."""

    def read(value: Any) -> str:
        _require(isinstance(value, str) and value in words)
        return str(value)

    return Form(" or ".join(map(repr, words)), read)


FINITE = number("a finite number; 0 switches it off", lambda value: True)
PENALTY_FACTOR = above_0("a number above 0; 1 switches it off")
GROUP_PENALTY = number("a number above 0 where there are groups, else 0", lambda value: value >= 0)
TEMPERATURE = above_0("a number above 0; 1 switches it off, and do_sample=False is what 0 would be")
SECONDS = above_0("a number of seconds above 0; None switches it off")
# Parts of a probability; they differ in which of the two ends they include.
PART_OFF_AT_1 = number("a number from 0 to 1; 1 switches it off", lambda value: 0 <= value <= 1)
PART_OFF_AT_0 = number("a number from 0 to 1; 0 switches it off", lambda value: 0 <= value <= 1)
PART_OFF_AT_NONE = number("a number above 0 and at most 1; None switches it off", lambda value: 0 < value <= 1)
PART_ABOVE_0 = number("a number above 0 and at most 1; 1 switches it off", lambda value: 0 < value <= 1)
CUTOFF = number("a number from 0 to below 1; 0 switches it off", lambda value: 0 <= value < 1)
YES_OR_NO = Form("True or False", _yes_or_no)
EARLY_STOPPING = Form('True, False or "never"', _early_stopping)


# ---- token ids, and lists of them -----------------------------------------------------------------------------------


def _id(value: Any) -> int:
    _require(is_integer(value) and value >= 0)
    return int(value)


def _ids(value: Any) -> IdTuple:
    _require(_is_list(value))
    return tuple(_id(token) for token in value)


def _some_ids(value: Any) -> IdTuple:
    _require(_is_list(value) and len(value) > 0)
    return _ids(value)


def _id_or_ids(value: Any) -> int | IdTuple | None:
    return _ids(value) or None if _is_list(value) else _id(value)


def _runs(value: Any) -> tuple[IdTuple, ...]:
    _require(_is_list(value))
    return tuple(_some_ids(run) for run in value)


def _biases(value: Any) -> tuple[tuple[IdTuple, float], ...]:
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    _require(_is_list(pairs) and all(_is_list(pair) and len(pair) == 2 for pair in pairs))
    _require(all(is_number(bias) or bias == -math.inf for _, bias in pairs))
    # Of two biases for one run the last counts, as in a dict.
    return tuple({_some_ids(run): float(bias) for run, bias in pairs}.items())


def _decay(value: Any) -> tuple[int, float]:
    _require(_is_list(value) and len(value) == 2)
    return _id(value[0]), PENALTY_FACTOR.read(value[1])


def _texts(value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    _require(isinstance(texts, (list, tuple)) and all(isinstance(text, str) and text for text in texts))
    return tuple(texts)


def _seed(value: Any) -> int | IdTuple:
    return _some_ids(value) if _is_list(value) else _id(value)


ONE_ID = Form("an id of the vocabulary", _id, holds_ids=True)
ID_OR_IDS = Form("an id of the vocabulary, or a list of ids; None switches it off", _id_or_ids, holds_ids=True)
IDS = Form("a list of ids; [] switches it off", _ids, holds_ids=True)
RUNS_OF_IDS = Form("a list of lists of ids, such as [[47], [9, 12]]; [] switches it off", _runs, holds_ids=True)
BIASES = Form("a dict such as {(9, 12): -2.5}, or a list such as [[[9, 12], -2.5]]", _biases, holds_ids=True)
DECAY = Form("(new tokens after which it begins, factor above 0)", _decay)
SEED = Form("a whole number of at least 0, or one for each document", _seed)
TEXTS = Form("a text, or a list of texts, none of them empty", _texts)
