"""Settings whose value is more than a number with a least value: shares of a probability, lists of ids, biases, texts.

For each the form that it must have, in words, and a function that brings it into the one form that the rest works with
(tuples, Python's numbers). What does not fit raises ValueError; `checks.py` makes the message of it.

    >>> FORMS["bad_words_ids"].read([[5], [np.int64(6), 7]])
    ((5,), (6, 7))
    >>> FORMS["sequence_bias"].read({(5, 6): -1})
    (((5, 6), -1.0),)
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Form:
    """What a setting's value must look like: in words, and as a function that reads it or raises ValueError."""

    wanted: str
    read: Callable[[Any], Any]


def is_whole(value: object) -> bool:
    """Whether it is a whole number; True and False are not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is a finite number; True and False are not."""
    is_one = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return is_one and math.isfinite(value)  # type: ignore[arg-type]


def _check(fits: bool) -> None:
    if not fits:
        raise ValueError


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple, np.ndarray))


def _above_zero(value: Any) -> float:
    _check(is_number(value) and value > 0)
    return float(value)


def _share(*, with_0: bool, with_1: bool) -> Callable[[Any], float]:
    """Reads a number from 0 to 1; whether the ends belong to it differs."""

    def read(value: Any) -> float:
        _check(is_number(value) and 0 <= value <= 1 and (with_0 or value > 0) and (with_1 or value < 1))
        return float(value)

    return read


def _ids(value: Any) -> Ids:
    _check(_is_list(value) and all(is_whole(token) and token >= 0 for token in value))
    return tuple(int(token) for token in value)


def _some_ids(value: Any) -> Ids:
    _check(_is_list(value) and len(value) > 0)
    return _ids(value)


def _runs(value: Any) -> tuple[Ids, ...]:
    _check(_is_list(value))
    return tuple(_some_ids(run) for run in value)


def _biases(value: Any) -> tuple[tuple[Ids, float], ...]:
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    _check(_is_list(pairs) and all(_is_list(pair) and len(pair) == 2 for pair in pairs))
    _check(all(is_number(bias) or bias == -math.inf for _, bias in pairs))
    # Of two biases for one run the last counts, as in a dict.
    return tuple({_some_ids(run): float(bias) for run, bias in pairs}.items())


def _decay(value: Any) -> tuple[int, float]:
    _check(_is_list(value) and len(value) == 2 and is_whole(value[0]) and value[0] >= 0)
    return int(value[0]), _above_zero(value[1])


def _texts(value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    _check(isinstance(texts, (list, tuple)) and all(isinstance(text, str) and text for text in texts))
    return tuple(texts)


def _seed(value: Any) -> int | Ids:
    if is_whole(value):
        _check(value >= 0)
        return int(value)
    return _some_ids(value)


FORMS = {
    "temperature": Form("a number above 0; 1 switches it off, and do_sample=False is what 0 would be", _above_zero),
    "top_p": Form("a number from 0 to 1; 1 switches it off", _share(with_0=True, with_1=True)),
    "min_p": Form("a number from 0 to 1; 0 switches it off", _share(with_0=True, with_1=True)),
    "top_h": Form("a number above 0 and at most 1; None switches it off", _share(with_0=False, with_1=True)),
    "typical_p": Form("a number above 0 and at most 1; 1 switches it off", _share(with_0=False, with_1=True)),
    "epsilon_cutoff": Form("a number from 0 to below 1; 0 switches it off", _share(with_0=True, with_1=False)),
    "eta_cutoff": Form("a number from 0 to below 1; 0 switches it off", _share(with_0=True, with_1=False)),
    "seed": Form("a whole number of at least 0, or one for each document", _seed),
    "max_time": Form("a number of seconds above 0; None switches it off", _above_zero),
    "bad_words_ids": Form("a list of lists of ids, such as [[47], [9, 12]]; [] switches it off", _runs),
    "sequence_bias": Form("a dict such as {(9, 12): -2.5}, or a list such as [[[9, 12], -2.5]]", _biases),
    "suppress_tokens": Form("a list of ids; [] switches it off", _ids),
    "begin_suppress_tokens": Form("a list of ids; [] switches it off", _ids),
    "exponential_decay_length_penalty": Form("(new tokens after which it begins, factor above 0)", _decay),
    "stop_strings": Form("a text, or a list of texts, none of them empty", _texts),
}
