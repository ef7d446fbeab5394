"""Rounding a matrix to int8 or NF4: from float32 numbers to the codes and scales of led_backends/compact.py.

    int8    code = round(127 x / absmax of the row)           half a step off at most: absmax / 254
    nf4     code = nearest of CODE_BOOK to x / absmax          half a gap off at most: 0.152 absmax of the block

`round` is to the nearest, ties to even. Both are symmetric (0 stays 0) and need no data to calibrate with. Which matrices are
rounded, and their layout in a file: file_format.py.

    >>> import numpy as np
    >>> weight = int8_of(np.array([[0.2, -1.0, 0.5039]], np.float32) * 127 / 2)
    >>> weight.codes.tolist(), weight[:].tolist()
    ([[25, -127, 64]], [[12.5, -63.5, 32.0]])
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from led_backends.compact import (
    BLOCK,
    CODE_BOOK,
    LARGEST_CODE,
    SCALES_BLOCK,
    CompactWeight,
    DoubleScales,
    Int8Weight,
    NF4Weight,
    dynamic_map,
    pairs,
)
from led_backends.contract import HostArray
from led_ref.errors import InputError

_FLOAT32 = np.dtype("float32")


def quantized(matrix: HostArray, kind: str) -> CompactWeight:
    """A matrix (out, in), float32 and finite, rounded to "int8", "nf4" or "nf4-double"; InputError for another kind."""
    check_kind(kind)
    return _MAKERS[kind](matrix)


def check_kind(kind: str) -> None:
    """Validate a kind of quantization; InputError for an unknown one."""
    if kind not in KINDS:
        raise InputError(f"quantize is {kind!r}; choose one of {', '.join(KINDS)}, or None for no rounding.")


def int8_of(matrix: HostArray) -> Int8Weight:
    """int8 with a scale for each row: what bitsandbytes calls vector-wise (LLM.int8() without outliers)."""
    absmax = np.abs(matrix).max(axis=1, initial=0)
    codes = _scaled(matrix, absmax, LARGEST_CODE)
    np.rint(codes, out=codes)
    return Int8Weight(matrix.shape, _FLOAT32, codes.astype(np.int8), absmax)


def nf4_of(matrix: HostArray, *, double: bool = False) -> NF4Weight:
    """NF4 in blocks of 64 numbers, row after row; the last block may be a part of one."""
    blocks = math.ceil(matrix.size / BLOCK)
    numbers = np.zeros((blocks, BLOCK), np.float32)
    numbers.reshape(-1)[: matrix.size] = matrix.reshape(-1)
    absmax = np.abs(numbers).max(axis=1, initial=0)
    packed = pack(nearest(np.array(CODE_BOOK, np.float32), _scaled(numbers, absmax)))
    scales = double_scales(absmax) if double else absmax
    return NF4Weight(matrix.shape, _FLOAT32, packed, scales, pairs())


def double_scales(absmax: HostArray) -> DoubleScales:
    """Absmaxes of blocks in 8 bits: their mean taken away, the rest in blocks of 256 as numbers of the dynamic map."""
    offset = absmax.mean(dtype=np.float32)
    rest = np.zeros((math.ceil(len(absmax) / SCALES_BLOCK), SCALES_BLOCK), np.float32)
    rest.reshape(-1)[: len(absmax)] = absmax - offset
    largest = np.abs(rest).max(axis=1, initial=0)
    codes = nearest(dynamic_map(), _scaled(rest, largest)).reshape(-1)[: len(absmax)]
    return DoubleScales(codes, largest, dynamic_map(), float(offset))


def nearest(book: HostArray, numbers: HostArray) -> HostArray:
    """For each number the index of the nearest in a sorted book, uint8; of two equally near ones the smaller.

    Example:
        >>> nearest(np.array([-1, 0, 1], np.float32), np.array([0.2, 0.5, 0.6], np.float32)).tolist()
        [1, 1, 2]
    """
    between = (book[:-1] + book[1:]) / np.float32(2)
    return np.searchsorted(between, numbers, side="left").astype(np.uint8)


def pack(codes: HostArray) -> HostArray:
    """4-bit codes, an even number of them, two to a byte: the first is the upper half.

    Example:
        >>> pack(np.array([15, 7, 0, 1], np.uint8)).tolist() == [0xF7, 0x01]
        True
    """
    two = codes.reshape(-1, 2)
    packed: HostArray = (two[:, 0] << 4) | two[:, 1]
    return packed


def _scaled(blocks: HostArray, absmax: HostArray, largest: int = 1) -> HostArray:
    """Each row brought to [-largest, largest], rounded as torch rounds it; a row of zeros stays one."""
    scaled: HostArray = blocks * (np.float32(1) / np.maximum(absmax, np.float32(1e-36)) * np.float32(largest))[:, None]
    return scaled


_MAKERS: Mapping[str, Callable[[HostArray], CompactWeight]] = {
    "int8": int8_of,
    "nf4": nf4_of,
    "nf4-double": partial(nf4_of, double=True),
}
KINDS = tuple(_MAKERS)
