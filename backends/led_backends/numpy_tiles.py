"""How the CPU backend cuts products: in tiles that BLAS multiplies where they lie, in shares for its threads.

What is computed together never depends on how many threads there are, so neither does a bit of any result.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from led_backends.contract import Array

# A decoding step multiplies a few rows with matrices of many megabytes, so its time is theirs to come from memory. A BLAS
# that packs such a matrix first moves it more than once. Cut into tiles this small, OpenBLAS multiplies it where it lies:
# 4 rows times 49,152 x 768 weights took 9.4 ms instead of 24, 0.8 of the speed of memory (2 cores, AVX-512, OpenBLAS 0.3.31).
FEW_ROWS = 16
WEIGHT_ROWS = 64  # of a weight matrix, in a tile
KEYS = 256  # of attention's keys or values, in a tile

Parts = Sequence[tuple[int, slice]]  # which matrix, which of its rows


def tiled_product(rows: Array, matrix: Array, tile: int, out: Array) -> None:
    """`out = rows @ matrix.T`, `tile` rows of the matrix at a time, in one call of NumPy's batched product.

    rows (..., n, k), matrix (..., m, k), out (..., n, m). What is left behind the last whole tile is a product of its own.
    """
    *leading, m, k = matrix.shape
    if len(rows) == 1 and not leading:  # np.matmul keeps Python's lock if it is to make fewer than 500 numbers
        np.dot(matrix, rows[0], out=out[0])
        return
    whole = m // tile * tile
    if whole:
        tiles = matrix[..., :whole, :].reshape(*leading, -1, tile, k)
        into = out[..., :whole].reshape(*out.shape[:-1], -1, tile).swapaxes(-3, -2)
        np.matmul(rows[..., None, :, :], tiles.swapaxes(-1, -2), out=into)
    if whole < m:
        np.matmul(rows, matrix[..., whole:, :].swapaxes(-1, -2), out=out[..., whole:])


def tiled_sum(rows: Array, matrix: Array, tile: int, out: Array) -> None:
    """`out = rows @ matrix`, `tile` rows of the matrix at a time: rows (..., n, m), matrix (..., m, k), out (..., n, k)."""
    *leading, m, k = matrix.shape
    if rows.shape[-2] == 1 and in_columns(matrix):  # np.matmul would keep Python's lock here, too
        for n, columns in enumerate(matrix.swapaxes(-1, -2)):
            np.dot(columns, rows[n, 0], out=out[n, 0])
        return
    whole = m // tile * tile
    np.matmul(rows[..., whole:], matrix[..., whole:, :], out=out)
    if whole:
        parts = rows[..., :whole].reshape(*rows.shape[:-1], -1, tile).swapaxes(-3, -2)
        out += (parts @ matrix[..., :whole, :].reshape(*leading, -1, tile, k)).sum(-3)


def in_columns(matrix: Array) -> bool:
    """Whether it lies in memory column by column: split_heads for one query."""
    return matrix.strides[-2] < matrix.strides[-1]


def share(total: int, threads: int) -> int:
    """A thread's share of so many rows, in whole tiles: then the same rows are multiplied together however many share them."""
    return -(-total // (WEIGHT_ROWS * threads)) * WEIGHT_ROWS


@lru_cache(maxsize=256)
def shares(lengths: tuple[int, ...], threads: int) -> tuple[Parts, ...]:
    """The rows of several matrices, dealt to threads in order: what each gets, as (which matrix, rows of it).

    Example:
        >>> shares((128, 128, 128), threads=2)
        (((0, slice(0, 128, None)), (1, slice(0, 64, None))), ((1, slice(64, 128, None)), (2, slice(0, 128, None))))
    """
    dealt: list[list[tuple[int, slice]]] = [[]]
    whole = left = share(sum(share(length, 1) for length in lengths), threads)
    for n, length in enumerate(lengths):
        start = 0
        while start < length:
            if left <= 0:
                dealt.append([])
                left = whole
            part = slice(start, min(start + left, length))
            dealt[-1].append((n, part))
            start = part.stop
            left -= share(part.stop - part.start, 1)
    return tuple([tuple(parts) for parts in dealt if parts])


def slices(total: int, step: int) -> Iterator[slice]:
    """Slices of at most `step` that cover range(total)."""
    for start in range(0, total, step):
        yield slice(start, min(start + step, total))
