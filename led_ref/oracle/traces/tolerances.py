"""How far two programs that both compute LED may be apart: |a - b| <= atol + rtol |b|.

tolerance(np.float32([1, 2]), np.float32([1, 2]))      (0.0001, 1.58e-05)
"""

import math

import numpy as np

from led_backends.contract import HostArray

# The default (rtol, atol) by the coarser of the two dtypes: some hundred roundings, a few layers deep. The rounding of a sum
# is relative to its terms, not to the sum: atol is for values of size 1, and grows with them.
TOLERANCES = {"float64": (1e-9, 1e-10), "float32": (1e-4, 1e-5), "float16": (1e-2, 1e-3)}

# A gradient went through all layers twice, and through differences: its rounding is that much larger.
GRADIENT_ROUNDINGS = 10

# Values looked at a time, so that the float64 copies stay small beside the traces.
AT_ONCE = 1 << 20


def tolerance(
    a: HostArray, b: HostArray, rtol: float | None = None, atol: float | None = None, size: float | None = None
) -> tuple[float, float]:
    """(rtol, atol) for one step of two traces; (0, 0) for whole numbers and booleans.

    Args:
        a: one trace's values.
        b: the other's.
        rtol: in place of the default.
        atol: in place of the default.
        size: of a gradient: the size of its values.
    """
    floats = [array.dtype for array in (a, b) if array.dtype.kind == "f"]
    if not floats:
        return 0.0, 0.0
    coarser = min(floats, key=lambda dtype: dtype.itemsize)
    usual_rtol, usual_atol = TOLERANCES.get(coarser.name, TOLERANCES["float64"])
    if atol is None:
        atol = usual_atol * (max(1.0, root_mean_square(b)) if size is None else GRADIENT_ROUNDINGS * size)
    return usual_rtol if rtol is None else rtol, atol


def root_mean_square(values: HostArray) -> float:
    """The root mean square of the finite values; 0 without any."""
    flat, total, count = values.reshape(-1), 0.0, 0
    for start in range(0, flat.size, AT_ONCE):
        piece = flat[start : start + AT_ONCE].astype(np.float64)
        piece = piece[np.isfinite(piece)]
        total += float(np.square(piece).sum())
        count += piece.size
    return math.sqrt(total / count) if count else 0.0
