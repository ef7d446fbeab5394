"""Value forms of the generation settings: what a value may look like, in words and as a test, and how it is converted.

Settings are converted to the few types that the searches work with: Python's numbers, and tuples. `settings.py` says which
setting has which form, `checks.py` refuses what does not fit.

    >>> RUNS_OF_IDS.convert([[5], [np.int64(6), 7]])
    ((5,), (6, 7))
    >>> BIASES.convert({(5, 6): -1})
    (((5, 6), -1.0),)
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Form:
    """What a value must look like.

    Args:
        wanted: the form in words: "it must be ...".
        fits: whether a value has this form.
        convert: a value that fits, as Python's int, float, bool, str or tuples of them.
        holds_ids: whether it consists of token ids, all of which must lie in the model's vocabulary.
    """

    wanted: str
    fits: Callable[[Any], bool]
    convert: Callable[[Any], Any]
    holds_ids: bool = False


def is_integer(value: object) -> bool:
    """Whether it is a whole number, Python's or NumPy's; True and False are not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is a finite number, Python's or NumPy's; True and False are not."""
    is_one = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return is_one and math.isfinite(value)  # type: ignore[arg-type]


# ---- numbers, True and False, words ---------------------------------------------------------------------------------


def integer(least: int) -> Form:
    """A whole number of at least `least`."""
    return Form(f"a whole number of at least {least}", lambda value: is_integer(value) and value >= least, int)


def number(wanted: str, fits: Callable[[float], bool]) -> Form:
    """A finite number for which `fits` is True."""
    return Form(wanted, lambda value: is_number(value) and fits(value), float)


def one_of(*words: str) -> Form:
    """One of several words."""
    return Form(" or ".join(map(repr, words)), lambda value: isinstance(value, str) and value in words, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, (bool, np.bool_))


FINITE = number("a finite number; 0 switches it off", lambda value: True)
PENALTY_FACTOR = number("a number above 0; 1 switches it off", lambda value: value > 0)
GROUP_PENALTY = number("a number above 0 where there are groups, else 0", lambda value: value >= 0)
TEMPERATURE = number(
    "a number above 0; 1 switches it off, and do_sample=False is what 0 would be", lambda value: value > 0
)
SECONDS = number("a number of seconds above 0; None switches it off", lambda value: value > 0)
# Parts of a probability; they differ in which of the two ends they include.
PART_OFF_AT_1 = number("a number from 0 to 1; 1 switches it off", lambda value: 0 <= value <= 1)
PART_OFF_AT_0 = number("a number from 0 to 1; 0 switches it off", lambda value: 0 <= value <= 1)
PART_OFF_AT_NONE = number("a number above 0 and at most 1; None switches it off", lambda value: 0 < value <= 1)
PART_ABOVE_0 = number("a number above 0 and at most 1; 1 switches it off", lambda value: 0 < value <= 1)
CUTOFF = number("a number from 0 to below 1; 0 switches it off", lambda value: 0 <= value < 1)
YES_OR_NO = Form("True or False", _is_flag, bool)
EARLY_STOPPING = Form(
    'True, False or "never"',
    lambda value: _is_flag(value) or (isinstance(value, str) and value == "never"),
    lambda value: value if isinstance(value, str) else bool(value),
)


# ---- token ids, lists of them, texts --------------------------------------------------------------------------------


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple, np.ndarray))


def _is_id(value: Any) -> bool:
    return is_integer(value) and value >= 0


def _is_ids(value: Any) -> bool:
    return _is_list(value) and all(map(_is_id, value))


def _is_run(value: Any) -> bool:
    return _is_ids(value) and len(value) > 0


def _to_ids(value: Any) -> tuple[int, ...]:
    return tuple(map(int, value))


def _pairs(value: Any) -> Any:
    return list(value.items()) if isinstance(value, Mapping) else value


def _is_biases(value: Any) -> bool:
    pairs = _pairs(value)
    if not (_is_list(pairs) and all(_is_list(pair) and len(pair) == 2 for pair in pairs)):
        return False
    return all(_is_run(run) and (is_number(bias) or bias == -math.inf) for run, bias in pairs)


def _is_decay(value: Any) -> bool:
    return _is_list(value) and len(value) == 2 and _is_id(value[0]) and PENALTY_FACTOR.fits(value[1])


def _is_texts(value: Any) -> bool:
    texts = (value,) if isinstance(value, str) else value
    return isinstance(texts, (list, tuple)) and all(isinstance(text, str) and text for text in texts)


ONE_ID = Form("an id of the vocabulary", _is_id, int, holds_ids=True)
ID_OR_IDS = Form(
    "an id of the vocabulary, or a list of ids; None switches it off",
    lambda value: _is_id(value) or _is_ids(value),
    lambda value: (_to_ids(value) or None) if _is_list(value) else int(value),
    holds_ids=True,
)
IDS = Form("a list of ids; [] switches it off", _is_ids, _to_ids, holds_ids=True)
RUNS_OF_IDS = Form(
    "a list of lists of ids, such as [[47], [9, 12]]; [] switches it off",
    lambda value: _is_list(value) and all(map(_is_run, value)),
    lambda value: tuple(map(_to_ids, value)),
    holds_ids=True,
)
BIASES = Form(
    "a dict such as {(9, 12): -2.5}, or a list such as [[[9, 12], -2.5]]",
    _is_biases,
    # Of two biases for one run the last counts, as in a dict.
    lambda value: tuple({_to_ids(run): float(bias) for run, bias in _pairs(value)}.items()),
    holds_ids=True,
)
DECAY = Form(
    "(new tokens after which it begins, factor above 0)", _is_decay, lambda value: (int(value[0]), float(value[1]))
)
SEED = Form(
    "a whole number of at least 0, or one for each document",
    lambda value: _is_id(value) or _is_run(value),
    lambda value: _to_ids(value) if _is_list(value) else int(value),
)
TEXTS = Form(
    "a text, or a list of texts, none of them empty",
    _is_texts,
    lambda value: (value,) if isinstance(value, str) else tuple(value),
)
