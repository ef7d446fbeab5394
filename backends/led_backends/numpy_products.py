"""Matrix products where NumPy has no BLAS: in a browser, for example.

`np.matmul` is then three plain loops. `np.einsum` has loops of its own, which take several numbers at a time where both
operands lie dense along the axis that is summed. In WebAssembly (NumPy 2.4.3, float32, 10^9 operations a second):

| product | np.matmul | np.einsum, dense |
|---|---|---|
| 256 x 128 times 128 x 128, transposed | 3.0 | 4.6 |
| 256 x 512 times 512 x 128, transposed | 1.3 | 3.2 |
| 4 x 128 times 128 x 512, transposed | 3.1 | 4.8 |
"""

import numpy as np

from led_backends.contract import Array


def has_blas() -> bool:
    """Whether this NumPy was built with a BLAS."""
    built_with = np.show_config(mode="dicts")["Build Dependencies"]
    return bool(built_with.get("blas", {}).get("found"))


HAS_BLAS = has_blas()
SHORT = 64  # to begin a sum costs as much as some hundred of its terms


def times_transposed(a: Array, b: Array, out: Array | None = None) -> Array:
    """`a @ b.T`: a (..., n, k), b (..., m, k) -> (..., n, m)."""
    if a.shape[-1] < SHORT < a.shape[-2]:  # many short sums: longer loops, along m
        product: Array = np.einsum("...nk,...km->...nm", a, np.ascontiguousarray(b.swapaxes(-1, -2)), out=out)
    else:
        product = np.einsum("...nk,...mk->...nm", a, b, out=out)
    return product


def times(a: Array, b: Array, out: Array | None = None) -> Array:
    """`a @ b`: a (..., n, m), b (..., m, k) -> (..., n, k). It copies b once, so that it is dense along m."""
    return times_transposed(a, np.ascontiguousarray(b.swapaxes(-1, -2)), out)


def product(rows: Array, matrix: Array, _tile: int, out: Array) -> None:
    """As tiled_product (numpy_pieces.py); no tile is faster than the whole."""
    times_transposed(rows, matrix, out)


def product_sum(rows: Array, matrix: Array, _tile: int, out: Array) -> None:
    """As tiled_sum."""
    times(rows, matrix, out)
