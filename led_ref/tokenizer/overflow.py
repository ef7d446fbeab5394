"""What truncation leaves over, as rows of its own: `return_overflowing_tokens` and `stride`, with transformers' meaning.

    tokens    0 1 2 3 4 5 6 7 8 9        room for 5, stride 2
    row 0     0 1 2 3 4
    row 1           3 4 5 6 7            the next row repeats the last 2 tokens
    row 2                 6 7 8 9        the last one may be shorter

Where the left side is cut, rows are counted from the end. Of a pair one text is cut, and the other stands in each row.

    >>> windows(10, room=5, stride=2), windows(10, room=5, stride=2, side="left")
    ([(0, 5), (3, 8), (6, 10)], [(5, 10), (2, 7), (0, 4)])
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from led_ref.errors import InputError, quoted
from led_ref.tokenizer.batch import BatchEncoding, LengthRules
from led_ref.tokenizer.engine import Encoded


def windows(length: int, *, room: int, stride: int, side: str = "right") -> list[tuple[int, int]]:
    """The rows of a text of so many tokens, as (start, stop); one row if it fits."""
    found = [(0, min(room, length))]
    while found[-1][1] < length:
        start = found[-1][1] - stride
        found.append((start, min(start + room, length)))
    return found if side == "right" else [(length - stop, length - start) for start, stop in found]


def check_overflow(overflows: bool, stride: Any, rules: LengthRules, *, is_pair: bool) -> int:
    """The stride as an int.

    Raises:
        InputError: if it is no whole number of at least 0, or without effect; if nothing is truncated, or of a pair both texts.
    """
    is_number = isinstance(stride, int | np.integer) and not isinstance(stride, bool)
    if not is_number or stride < 0:
        raise InputError(f"stride is {quoted(stride, 60)}; it must be a whole number of at least 0.")
    if not overflows and stride:
        raise InputError(f"stride={stride} does nothing without return_overflowing_tokens=True. Add it.")
    if overflows and rules.truncation is None:
        raise InputError("return_overflowing_tokens=True does nothing without truncation. Add truncation=True.")
    if overflows and is_pair and rules.truncation == "longest_first":
        raise InputError(
            "return_overflowing_tokens=True with two texts needs the one that is cut: truncation='only_first' or "
            "'only_second'."
        )
    return int(stride)


def rows_with_overflow(
    encoded: Sequence[Encoded], kept: Sequence[int], stride: int, side: str
) -> Iterator[list[Encoded]]:
    """A text or pair, cut into rows.

    Args:
        encoded: ids and offsets of each text.
        kept: how many tokens of each have room in a row.
        stride: how many tokens a row repeats.
        side: which side truncation cuts.

    Raises:
        InputError: if a row has no room for more than the stride.
    """
    which = next((k for k, (ids, _) in enumerate(encoded) if len(ids) > kept[k]), None)
    if which is None:
        yield list(encoded)
        return
    if stride >= kept[which]:
        raise InputError(
            f"stride is {stride}, but a row has room for {kept[which]} tokens of the text. Give a smaller one, or a larger "
            "max_length."
        )
    ids, offsets = encoded[which]
    for start, stop in windows(len(ids), room=kept[which], stride=stride, side=side):
        yield [*encoded[:which], (ids[start:stop], offsets[start:stop]), *encoded[which + 1 :]]


def with_mapping(found: BatchEncoding, of_text: Sequence[int]) -> BatchEncoding:
    """The encoding with the number of each row's text, as an array where the other fields are."""
    is_array = isinstance(found["input_ids"], np.ndarray)
    return BatchEncoding({**found, "overflow_to_sample_mapping": np.array(of_text, np.int64) if is_array else of_text})
