"""Weights that are kept smaller than they are computed with, and become numbers a tile at a time, where they are used.

    kept as     bytes a number       a number is                              from
    float16     2                    itself, widened                          the checkpoint's own
    bfloat16    2                    itself, widened                          the checkpoint's own
    int8        1 + 4 / in           code * absmax of its row / 127           LLM.int8(), arXiv 2208.07339, section 2
    nf4         1/2 + 4 / 64         CODE_BOOK[code] * absmax of its block    QLoRA, arXiv 2305.14314, section 3
    nf4-double  1/2 + 1 / 64         the same, absmax itself in 8 bits        there, "double quantization"

A block is 64 numbers in a row of memory, whichever rows of the matrix they are in. Two codes share a byte, the first one
in its upper half:

    >>> import numpy as np
    >>> codes = np.zeros(32, np.uint8)
    >>> codes[0] = 0xF7  # 15 is the largest number of the block, 7 is zero
    >>> weight = NF4Weight((1, 64), np.dtype("float32"), codes, np.array([0.5], np.float32), pairs())
    >>> weight[:][0, :3].tolist()  # and code 0 is the smallest number
    [0.5, 0.0, -0.5]

All of it is written with methods that NumPy's and CuPy's arrays share, so one version serves both.
What is not here: how a matrix is rounded to such codes, and the files (led_ref/weights/quantization).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self, cast

import numpy as np

from led_backends.contract import Array, HostArray, Weight

BLOCK = 64  # numbers that share an absmax in NF4
SCALES_BLOCK = 256  # absmaxes that share one of their own in double quantization
LARGEST_CODE = 127  # of int8; -128 is not used, so that zero is in the middle

# The 16 quantiles of a normal distribution that QLoRA's appendix E lists, scaled to [-1, 1], with an exact zero.
CODE_BOOK = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


@dataclass(frozen=True)
class OfArrays:
    """A dataclass with arrays among its fields."""

    def on(self, to_device: Callable[[HostArray], Array]) -> Self:
        """The same with its arrays on a device."""
        moved: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, OfArrays):
                moved[name] = value.on(to_device)
            elif hasattr(value, "dtype"):
                moved[name] = to_device(value)
        return replace(self, **moved)


@dataclass(frozen=True)
class CompactWeight(OfArrays):
    """A matrix that is kept smaller than it is computed with. `weight[rows]` are dense rows, as with an array.

    Backends multiply with one a tile at a time, so that no large matrix is ever dense as a whole.

    Args:
        shape: (out, in).
        dtype: of the numbers that its rows become: what is computed in.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        """The number of rows."""
        return self.shape[0]

    @property
    def size(self) -> int:
        """The number of its numbers."""
        return self.shape[0] * self.shape[1]

    def tile(self, rows: Any) -> tuple[Array, Array | None]:
        """Some rows, dense, and a scale for each that they still lack; None: no scales."""
        raise NotImplementedError

    def __getitem__(self, rows: Any) -> Array:
        """Some rows, dense."""
        numbers, scales = self.tile(rows)
        return numbers if scales is None else numbers * scales[..., None]


def rows_of(weight: Weight, which: slice | Array | None = None) -> Array:
    """Rows of any weight as numbers; all of them unless some are named."""
    return cast(Array, weight)[slice(None) if which is None else which]


def tile_of(weight: Weight, rows: slice) -> tuple[Array, Array | None]:
    """Some rows of any weight, dense, and a scale for each that they still lack (`CompactWeight.tile`)."""
    return weight.tile(rows) if isinstance(weight, CompactWeight) else (rows_of(weight, rows), None)


@dataclass(frozen=True)
class HalfWeight(CompactWeight):
    """A table in half precision, as the checkpoint has it. Widening is exact.

    Args:
        bits: (out, in) uint16, the bit patterns; on a CPU a view of the file.
        kind: "float16" or "bfloat16".
    """

    bits: Array
    kind: str

    def tile(self, rows: Any) -> tuple[Array, None]:
        """The rows, widened."""
        return widen(self.bits[rows], self.kind).astype(self.dtype, copy=False), None


@dataclass(frozen=True)
class Int8Weight(CompactWeight):
    """A matrix of whole numbers from -127 to 127, with a scale for each row, which is an output of the linear map.

    Args:
        codes: (out, in) int8.
        absmax: (out,) float32: 127 codes' worth, for each row.
    """

    codes: Array
    absmax: Array

    def tile(self, rows: Any) -> tuple[Array, Array]:
        """The codes as numbers, and the rows' scales: a product is scaled sooner than the matrix."""
        return self.codes[rows].astype(self.dtype), self.absmax[rows].astype(self.dtype) / self.dtype.type(LARGEST_CODE)


@dataclass(frozen=True)
class DoubleScales(OfArrays):
    """The absmaxes of NF4's blocks in 8 bits: `book[code] * absmax + offset`.

    Args:
        codes: (blocks,) uint8.
        absmax: (ceil(blocks / 256),) float32.
        book: (256,) float32: `dynamic_map()`.
        offset: what was taken away first, their mean: what is left lies around zero.
    """

    codes: Array
    absmax: Array
    book: Array
    offset: float

    def __getitem__(self, blocks: slice) -> Array:
        """The absmaxes of these blocks, float32."""
        first = blocks.start // SCALES_BLOCK
        of_block: Array = self.absmax[first : -(-blocks.stop // SCALES_BLOCK)].repeat(SCALES_BLOCK)
        skipped = blocks.start - first * SCALES_BLOCK
        found: Array = _look_up(self.book, self.codes[blocks])
        found *= of_block[skipped : skipped + len(found)]
        found += np.float32(self.offset)
        return found


@dataclass(frozen=True)
class NF4Weight(CompactWeight):
    """A matrix of 4-bit codes, with an absmax for every 64 of them.

    Args:
        packed: uint8, two codes a byte, filled up to whole blocks.
        absmax: (blocks,) float32, or as DoubleScales.
        pairs: (256,) the two numbers that a byte stands for: `pairs()`.
    """

    packed: Array
    absmax: Array | DoubleScales
    pairs: Array

    def tile(self, rows: slice) -> tuple[Array, None]:
        """The rows, decoded: of all blocks that a part of them lies in."""
        start, stop, _ = rows.indices(len(self))
        width = self.shape[1]
        first, last = start * width // BLOCK, -(-stop * width // BLOCK)
        numbers = _look_up(self.pairs, self.packed[first * BLOCK // 2 : last * BLOCK // 2]).view("float32")
        blocks = numbers.reshape(-1, BLOCK)
        blocks *= self.absmax[first:last][:, None]
        before = start * width - first * BLOCK
        found = numbers[before : before + (stop - start) * width].reshape(stop - start, width)
        return found.astype(self.dtype, copy=False), None


def widen(bits: Array, kind: str) -> Array:
    """float32 from the bit patterns of "float16" or "bfloat16" (uint16). Exact for every finite number.

    bfloat16 is the upper half of a float32. float16 has the same order of sign, exponent and fraction, so its bits are moved
    to where float32 has them; its exponent counts from another zero, which a product with 2**112 puts right, also for the
    numbers below the least normal one. NumPy's own conversion takes three times as long (3.7 ns a number against 1.2).
    A GPU has an instruction for it, and needs it: CuPy's kernels take a float32 below its normal numbers for 0, which is
    where the smallest float16 are before that product.

    Example:
        >>> widen(np.array([1.5, -2.0**-24], np.float16).view(np.uint16), "float16").tolist()
        [1.5, -5.960464477539063e-08]
    """
    if kind == "bfloat16":
        wide: Array = bits.astype("uint32")
        wide <<= 16
        return wide.view("float32")
    if not isinstance(bits, np.ndarray):
        return bits.view("float16").astype("float32")
    wide = bits.view("int16").astype("int32")
    wide <<= 13
    wide &= ~0x70000000  # where the sign, copied when 16 bits became 32, is in the exponent's way
    numbers: Array = wide.view("float32")
    numbers *= np.float32(2.0**112)
    return numbers


@lru_cache(maxsize=1)
def pairs() -> HostArray:
    """For each byte the two float32 numbers that its two codes stand for, as the 8 bytes of one item: (256,) float64.

    They are looked up and moved, and never computed with as float64.
    """
    book = np.array(CODE_BOOK, np.float32)
    table = np.stack([book.repeat(16), np.tile(book, 16)], axis=1).view(np.float64).reshape(256)
    table.flags.writeable = False
    return table


@lru_cache(maxsize=1)
def dynamic_map() -> HostArray:
    """The 256 numbers of the 8-bit "dynamic" type, sorted: (256,) float32.

    A number has a sign, a power of ten from 10**-6 to 1, and the middle of one of 2**i equal parts of [0.1, 1]; the larger
    the power, the more parts. And there are 0 and 1. Source: 8-Bit Approximations for Parallelism in Deep Learning, arXiv
    1511.04561, in bitsandbytes' variant with signs. Its edges are torch.linspace's, rounded as there, from the nearer end;
    tests hold the very bits.
    """
    start, found = float(np.float32(0.1)), [0.0, 1.0]
    for i in range(7):
        parts = np.arange(2**i + 1)
        step = float(np.float32(1 - start) / np.float32(2**i))
        edges = np.where(parts < (2**i + 1) // 2, start + step * parts, 1 - step * (2**i - parts)).astype(np.float32)
        middles = (edges[:-1] + edges[1:]) / np.float32(2)
        scaled = (np.float32(10.0 ** (i - 6)) * middles).tolist()
        found += scaled + [-number for number in scaled]
    table = np.array(sorted(found), np.float32)
    table.flags.writeable = False
    return table


def _look_up(table: Array, codes: Array) -> Array:
    """`table[codes]`. Codes are bytes and the table has 256 entries, so none is outside; NumPy need not check each."""
    found: Array = table.take(codes, mode="clip") if isinstance(table, np.ndarray) else table.take(codes)
    return found


def stored_bytes(shape: tuple[int, int], kind: str) -> int:
    """Bytes that a matrix takes in a scheme: "float16", "bfloat16", "int8", "nf4" or "nf4-double".

    Example:
        >>> stored_bytes((768, 768), "nf4") / (4 * 768 * 768)  # of what float32 takes
        0.140625
    """
    numbers = math.prod(shape)
    if kind in ("float16", "bfloat16"):
        return 2 * numbers
    if kind == "int8":
        return numbers + 4 * shape[0]
    blocks = math.ceil(numbers / BLOCK)
    scales = 4 * blocks if kind == "nf4" else blocks + 4 * math.ceil(blocks / SCALES_BLOCK)
    return blocks * BLOCK // 2 + scales
