"""The sliding window of a whole document in one kernel (window_attend in kernels.cu), and what must hold before it is trusted.

**Never run on a GPU so far**, so it is off unless asked for: CupyBackend(fused=True). The tests run the kernel on a CPU,
thread by thread (tests/kernels), and the model with it on the stand-in for CuPy (tests/stand_in).

Nobody has to trust it. The first time that it computes in a dtype, some queries of that document are also computed from the
definition, in float64: all their scores in one table, softmax, weighted sum. If the two differ by more than rounding
explains, tiles of separate operations go on (led_ref/model/sliding_window.py), and a warning says so once.
"""

import math
from typing import Any, Protocol

import numpy as np

from led_backends.contract import Array, HostArray
from led_backends.notices import warn

# What kernels.cu says of the same names; and the widths of a head for which it is compiled.
ROWS = 64
WINDOW_THREADS = 128
WIDTHS = (16, 32, 64)
ALIGNED = 16  # bytes that a thread copies at a time

# By `dtype.char`: how far the first result may be off, over the largest number in it. In float16 a weight is rounded to 11
# bits, and so is the result; in float32 only sums are rounded.
CLOSE = {"f": 2.4e-5, "e": 4e-3}

# How many queries of the first document are computed from the definition.
CHECKED = 16


class Launcher(Protocol):
    """What is taken from CupyBackend."""

    xp: Any

    def to_host(self, array: Array) -> HostArray:
        """A copy on the host; waits for the device."""
        ...

    def launch(self, kernel: str, stored: Array, threads: int, of_block: int, *arguments: Any, of: int = 0) -> None:
        """Queue a kernel."""
        ...

    def store(self, x_BHSK: Array) -> tuple[Array, int]:
        """An array whose heads are dense, and how many numbers apart they begin."""
        ...


class FusedWindow:
    """`window_attend` of the contract by one kernel, once its first result has been compared."""

    def __init__(self, backend: Launcher) -> None:
        self.backend = backend
        self.trusted: dict[str, bool] = {}  # by dtype.char

    def __call__(
        self, q_HTK: Array, k_HTK: Array, v_HTK: Array, globals_G: Array, local_T: HostArray, radius: int
    ) -> Array | None:
        """As the contract says; None for dtypes and widths without a kernel, and where it was not trusted."""
        kind = q_HTK.dtype.char
        if kind not in CLOSE or q_HTK.shape[2] not in WIDTHS or not q_HTK.size or not self.trusted.get(kind, True):
            return None
        found_THK = self._launched(q_HTK, k_HTK, v_HTK, globals_G, local_T, radius)
        if kind not in self.trusted:
            difference = self._difference(found_THK, (q_HTK, k_HTK, v_HTK), globals_G, local_T, radius)
            self.trusted[kind] = difference <= CLOSE[kind]  # NaN is no small difference
            if not self.trusted[kind]:
                warn(
                    f"The sliding window is computed by separate operations, more slowly: the kernel's first result in "
                    f"{q_HTK.dtype.name} is off by {difference:.1e} of its largest number; rounding explains "
                    f"{CLOSE[kind]:.1e}. Without fused=True this attempt is spared."
                )
                return None
        return found_THK

    def _launched(
        self, q_HTK: Array, k_HTK: Array, v_HTK: Array, globals_G: Array, local_T: HostArray, radius: int
    ) -> Array:
        xp, (heads, tokens, width) = self.backend.xp, q_HTK.shape
        stores = [self._aligned(x_HTK) for x_HTK in (q_HTK, k_HTK, v_HTK)]
        # Without globals no number of these two is read, but a kernel takes no null pointer.
        of_globals = [
            xp.ascontiguousarray(x_HTK[:, globals_G]) if len(globals_G) else xp.empty(1, x_HTK.dtype)
            for x_HTK in (k_HTK, v_HTK)
        ]
        out_THK: Array = xp.empty((tokens, heads, width), q_HTK.dtype)
        arguments = (
            *(x for x, _ in stores), *of_globals, xp.asarray(local_T), out_THK,
            *(np.int32(n) for n in (heads, tokens, len(globals_G), radius)), *(stride for _, stride in stores),
        )  # fmt: skip
        threads = heads * math.ceil(tokens / ROWS) * WINDOW_THREADS
        self.backend.launch("window_attend", q_HTK, threads, WINDOW_THREADS, *arguments, of=width)
        return out_THK

    def _aligned(self, x_HTK: Array) -> tuple[Array, int]:
        """As `store`; a copy where heads do not begin at a multiple of 16 bytes."""
        x_1HTK, stride = self.backend.store(x_HTK[None])
        if x_1HTK.data.ptr % ALIGNED or stride * x_HTK.itemsize % ALIGNED:  # type: ignore[attr-defined]  # CuPy's
            return x_HTK.copy(), x_HTK[0].size
        return x_1HTK, stride

    def _difference(
        self, found_THK: Array, q_k_v: tuple[Array, Array, Array], globals_G: Array, local_T: HostArray, radius: int
    ) -> float:
        """The largest difference from the definition, over the largest number of it: on the host, once."""
        of_Q = np.unique(np.linspace(0, len(local_T) - 1, CHECKED, dtype=int))
        q_HTK, k_HTK, v_HTK = (self.backend.to_host(x_HTK).astype(np.float64) for x_HTK in q_k_v)
        expected_HQK = by_definition(q_HTK, k_HTK, v_HTK, self.backend.to_host(globals_G), local_T, radius, of_Q)
        found_QHK = self.backend.to_host(found_THK)[of_Q]
        with np.errstate(invalid="ignore", divide="ignore"):
            off = np.abs(found_QHK.swapaxes(0, 1) - expected_HQK).max()
            return float(off / np.abs(expected_HQK).max()) if off else 0.0


def by_definition(
    q_HTK: HostArray,
    k_HTK: HostArray,
    v_HTK: HostArray,
    globals_G: HostArray,
    local_T: HostArray,
    radius: int,
    of_Q: HostArray,
) -> HostArray:
    """What the queries `of_Q` take, (H, Q, K): one table of scores, softmax, weighted sum. Zeros if a query is not local."""
    sees_QT = (np.abs(of_Q[:, None] - np.arange(len(local_T))) <= radius) & local_T
    sees_QT[:, globals_G] = True
    scores_HQT = np.where(sees_QT, q_HTK[:, of_Q] @ k_HTK.swapaxes(1, 2), -np.inf)
    highest_HQ1 = scores_HQT.max(-1, keepdims=True)
    weights_HQT = np.exp(scores_HQT - np.where(np.isneginf(highest_HQ1), 0, highest_HQ1))
    total_HQ1 = weights_HQT.sum(-1, keepdims=True)
    out_HQK: HostArray = weights_HQT / np.where(total_HQ1 == 0, 1, total_HQ1) @ v_HTK
    return np.where(local_T[of_Q][:, None], out_HQK, 0)
