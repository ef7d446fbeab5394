"""Products of stacks of float16 matrices on tensor cores: cuBLAS, asked directly.

CuPy 14.2's `a @ b` of more than two axes copies what is not dense, makes float32 of float16, multiplies, and rounds what
comes out: on an H100 a tile of 12 heads, 1024 queries and 2056 keys took twice as long as the same one in float32. cuBLAS
multiplies float16 as it is, adds up in float32, and takes matrices as they lie, turned ones, too.

cuBLAS counts along columns, as Fortran does: our rows are its columns. So it is asked for b.T @ a.T, whose columns are the
rows of a @ b, and a matrix that lies here as it is ("not turned") it reads as that one's transpose.
"""

from typing import Any

import numpy as np

from led_backends.contract import Array

# cuBLAS reads the factors of `one * a @ b + zero * out` where they lie, on the host.
ONE, ZERO = np.ones(1, np.float32), np.zeros(1, np.float32)


def float16_products(cupy: Any, cublas: Any, a: Array, b: Array) -> Array:
    """`a @ b` over the last two axes: (..., R, C) and (..., C, X) -> (..., R, X), adding up in float32.

    Args:
        cupy: the module.
        cublas: CuPy's own binding, `cupy_backends.cuda.libs.cublas`.
        a: float16; no axis is empty.
        b: float16, with the same leading axes.
    """
    *leading, rows, inner = a.shape
    columns = b.shape[-1]
    left, turn_left, left_line = _as_it_lies(cupy, a.reshape(-1, rows, inner))
    right, turn_right, right_line = _as_it_lies(cupy, b.reshape(-1, inner, columns))
    out = cupy.empty((*leading, rows, columns), "float16")
    half = cupy.cuda.runtime.CUDA_R_16F
    cublas.gemmStridedBatchedEx(
        cupy.cuda.get_cublas_handle(), turn_right, turn_left, columns, rows, inner, ONE.ctypes.data,
        right.data.ptr, half, right_line, right.strides[0] // 2, left.data.ptr, half, left_line, left.strides[0] // 2,
        ZERO.ctypes.data, out.data.ptr, half, columns, rows * columns, len(left),
        cublas.CUBLAS_COMPUTE_32F, cublas.CUBLAS_GEMM_DEFAULT,
    )  # fmt: skip
    found: Array = out
    return found


def _as_it_lies(cupy: Any, x: Array) -> tuple[Any, int, int]:
    """A stack of matrices, whether each is turned in memory, and how many numbers apart its lines begin there.

    One that lies neither way is copied.
    """
    _, rows, columns = x.shape
    of_row, of_column = x.strides[1] // x.itemsize, x.strides[2] // x.itemsize
    if of_column == 1 and of_row >= columns:
        return x, 0, of_row
    if of_row == 1 and of_column >= rows:
        return x, 1, of_column
    return cupy.ascontiguousarray(x), 0, columns
