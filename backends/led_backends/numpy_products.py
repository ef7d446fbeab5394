"""Matrix products where NumPy has no BLAS: in a browser, for example.

`np.matmul` is then three plain loops. `np.einsum` has loops of its own, which take several numbers at a time where both
operands lie dense along the axis that is summed. Faster still is a kernel that keeps a block of the result in registers, as a
BLAS does: docs/build_products.py writes one in WebAssembly, and the page's program puts it into KERNEL.
In Chromium (NumPy 2.4.3, float32, 10^9 operations a second; 2 cores of a Xeon, 2.5 GHz):

| product | np.matmul | np.einsum, dense | the kernel |
|---|---|---|---|
| 256 x 192 times 192 x 768, transposed | 2.8 | 6.5 | 35 |
| 256 x 768 times 768 x 192, transposed | 2.5 | 6.9 | 38 |
| 4 x 192 times 192 x 768, transposed | 2.4 | 4.9 | 17 |
| 1 x 192 times 192 x 768, transposed | 2.3 | 4.9 | 7.4 |

So the bundled model reads 1,024 tokens in 0.26 s (0.23 to 0.35), with np.einsum in 0.63 (0.60 to 0.78), with np.matmul in 1.42
(1.33 to 1.52): medians of six runs in turns, 2026-11-30.
"""

from collections.abc import Callable

import numpy as np

from led_backends.contract import Array


def has_blas() -> bool:
    """Whether this NumPy was built with a BLAS."""
    built_with = np.show_config(mode="dicts")["Build Dependencies"]
    return bool(built_with.get("blas", {}).get("found"))


HAS_BLAS = has_blas()
SHORT = 64  # to begin a sum costs as much as some hundred of its terms
# kernel(batches, n, m, k, *of_a, *of_b, *of_result) writes `a @ b.T` for so many float32 matrices; of each operand it takes the
# address, the bytes from matrix to matrix and the bytes from row to row. Rows are dense.
KERNEL: Callable[..., None] | None = None


def times_transposed(a: Array, b: Array, out: Array | None = None) -> Array:
    """`a @ b.T`: a (..., n, k), b (..., m, k) -> (..., n, m). `out` shares no memory with them."""
    if KERNEL and a.dtype == b.dtype == np.float32 and (out is None or is_for_kernel(out)):
        return by_kernel(KERNEL, a, b, out)
    if a.shape[-1] < SHORT < a.shape[-2]:  # many short sums: longer loops, along m
        product: Array = np.einsum("...nk,...km->...nm", a, np.ascontiguousarray(b.swapaxes(-1, -2)), out=out)
    else:
        product = np.einsum("...nk,...mk->...nm", a, b, out=out)
    return product


def by_kernel(kernel: Callable[..., None], a: Array, b: Array, out: Array | None) -> Array:
    """`times_transposed` by the kernel: one call for all matrices along the last axis of the stack."""
    a, b = (each if is_for_kernel(each) else np.ascontiguousarray(each) for each in (a, b))
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    sizes = a.shape[-2], b.shape[-2], a.shape[-1]
    result: Array = np.empty((*stack, *sizes[:2]), np.float32) if out is None else out
    # A matrix of a that meets several of b is the same one each time: 0 bytes to the next.
    operands = [np.broadcast_to(each, (*stack, *each.shape[-2:])) for each in (a, b)] + [result]
    if not stack:
        operands = [each[None] for each in operands]
    for where in np.ndindex(stack[:-1]):
        layouts = []
        for matrices in (each[where] for each in operands):
            layouts += [matrices.__array_interface__["data"][0], *matrices.strides[:2]]
        kernel(*(stack[-1:] or (1,)), *sizes, *layouts)
    return result


def is_for_kernel(array: Array) -> bool:
    """Whether its numbers are float32, and those of a row lie side by side."""
    return array.dtype == np.float32 and (array.strides[-1] == array.itemsize or array.shape[-1] == 1)


def times(a: Array, b: Array, out: Array | None = None) -> Array:
    """`a @ b`: a (..., n, m), b (..., m, k) -> (..., n, k). It copies b once, so that it is dense along m."""
    return times_transposed(a, np.ascontiguousarray(b.swapaxes(-1, -2)), out)


def product(rows: Array, matrix: Array, _tile: int, out: Array) -> None:
    """As tiled_product (numpy_pieces.py); no tile is faster than the whole."""
    times_transposed(rows, matrix, out)


def product_sum(rows: Array, matrix: Array, _tile: int, out: Array) -> None:
    """As tiled_sum."""
    times(rows, matrix, out)
