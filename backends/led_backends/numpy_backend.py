"""The CPU: NumPy for the arithmetic, its BLAS for the products, threads for everything else.

A BLAS product uses all cores by itself. What NumPy does element by element (GELU, LayerNorm, softmax) uses one; such work
is cut into pieces that stay in a core's cache, and the pieces are spread over threads (NumPy lets go of Python's lock
while it computes). Inside those threads BLAS is held to one thread, so that cores are not asked for twice.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from led_backends.contract import Array, HostArray
from led_backends.gelu_tail import CENTRE, tail_coefficients

# Elements that one thread works on at a time: two float32 scratch arrays of this size fit a core's second-level cache.
CHUNK = 1 << 15

# Up to this many rows `(weight @ x.T).T` was measured to be faster than `x @ weight.T`: 30 ms against 76 for 4 rows of
# led-base's logits, 59 against 85 for 16 (2 cores, OpenBLAS 0.3.31).
FEW_ROWS = 16

LAYER_NORM_EPS = 1e-5

Piece = TypeVar("Piece")


class NumpyBackend:
    """The contract (contract.py) on the CPU, for float32 and float64.

    Args:
        threads: how many threads to use; None: as many as this process has processors.
    """

    name = "numpy"
    xp: Any = np

    def __init__(self, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}; give at least 1, or None for all processors.")
        self.threads = threads or _processors()
        self._pool: ThreadPoolExecutor | None = None
        self._in_a_worker = threading.local()

    def to_device(self, array: HostArray) -> Array:
        """The array itself: the host is the device."""
        return np.ascontiguousarray(array)

    def to_host(self, array: Array) -> HostArray:
        """The array itself."""
        return array

    def linear(self, x: Array, weight: Array, bias: Array) -> Array:
        """`x @ weight.T + bias`, all leading axes of x taken together as rows of one product.

        BLAS copies its right-hand matrix into an order of its own. For few rows, as in a decoding step, that copy of the
        weights costs more than the product; so the sides are exchanged, `(weight @ x.T).T`, and the few rows are copied.
        """
        rows = x.reshape(-1, x.shape[-1])
        if 1 < len(rows) <= FEW_ROWS:
            y = np.ascontiguousarray((weight @ np.ascontiguousarray(rows.T)).T)
        else:
            y = rows @ weight.T
        y += bias
        return y.reshape(*x.shape[:-1], weight.shape[0])

    def layer_norm(self, x: Array, weight: Array, bias: Array, update: Array | None = None) -> Array:
        """LayerNorm of x, or of x + update, over rows that stay in cache. Leaves both alone.

        In float64 within a row, rounded once at its end: six float32 roundings one after the other would be a good part
        of all the error that a float32 model makes (docs/accuracy.md), and the cost is under 1% of the encoder.
        """
        width = x.shape[-1]
        rows = x.reshape(-1, width)
        updates = None if update is None else np.broadcast_to(update, x.shape).reshape(-1, width)
        out = np.empty_like(rows)

        def normalise(piece: slice) -> None:
            centred = rows[piece].astype(np.float64)
            if updates is not None:
                centred += updates[piece]
            centred -= centred.mean(-1, keepdims=True)
            variance = np.einsum("rd,rd->r", centred, centred)[:, None] / width
            centred *= 1 / np.sqrt(variance + LAYER_NORM_EPS)
            centred *= weight
            centred += bias
            out[piece] = centred

        self._spread(normalise, list(_slices(len(rows), max(1, CHUNK // width))))
        return out.reshape(x.shape)

    def gelu(self, x: Array) -> Array:
        """`max(x, 0) - |x| Phi(-|x|)`, in place (gelu_tail.py says why this form)."""
        coefficients = [x.dtype.type(c) for c in tail_coefficients(x.dtype.name)]
        flat = x.reshape(-1)
        if not np.shares_memory(flat, x):
            raise ValueError("gelu works in place and needs a contiguous array.")

        def activate(piece: slice) -> None:
            _gelu_in_place(flat[piece], coefficients)

        self._spread(activate, list(_slices(len(flat), CHUNK)))
        return x

    def hide(self, scores: Array, may_look: Array) -> None:
        """Minus infinity where `may_look` is False, in place."""
        np.copyto(scores, -np.inf, where=~may_look)

    def softmax(self, scores: Array) -> Array:
        """Softmax over the last axis, in place; a row that may look at nothing becomes zeros."""
        highest = scores.max(-1, keepdims=True, initial=-np.inf)
        highest[highest == -np.inf] = 0  # a row that may look at nothing: exp(-inf - 0) makes it all zeros
        scores -= highest
        np.exp(scores, out=scores)
        total = scores.sum(-1, keepdims=True)
        total[total == 0] = 1
        scores /= total
        return scores

    def for_each_tile(self, tile: Callable[[slice], None], heads: int) -> None:
        """One head a tile, the tiles spread over threads, BLAS at one thread meanwhile."""
        self._spread(_quietly(tile), [slice(h, h + 1) for h in range(heads)])

    # ---- threads ----------------------------------------------------------------------------------------------------

    def _spread(self, work: Callable[[Piece], None], pieces: Sequence[Piece]) -> None:
        """Do the work on every piece: here if there is one thread or one piece, else over the pool."""
        if self.threads == 1 or len(pieces) < 2 or getattr(self._in_a_worker, "yes", False):
            for piece in pieces:
                work(piece)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads, "led_ref", initializer=self._mark_worker)
        with _BLAS.at_one_thread():
            for _ in self._pool.map(work, pieces):  # reading the results raises what a thread raised
                pass

    def _mark_worker(self) -> None:
        """A worker that waited for other workers could wait for ever: what it is asked to spread it does itself."""
        self._in_a_worker.yes = True


class _BlasThreads:
    """Holds BLAS to one thread while anybody asks for it. The setting belongs to the process, so the askers are counted.

    Were it saved and restored by each asker, two that overlap would leave it at one thread for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._askers = 0
        self._libraries: Any = None
        self._limit: Any = None

    @contextmanager
    def at_one_thread(self) -> Iterator[None]:
        """While this lasts, each BLAS call stays in the thread that makes it."""
        with self._lock:
            self._askers += 1
            if self._askers == 1:
                self._limit = self._hold()
        try:
            yield
        finally:
            with self._lock:
                self._askers -= 1
                if self._askers == 0 and self._limit is not None:
                    self._limit.restore_original_limits()

    def _hold(self) -> Any:
        if self._libraries is None:
            try:
                from threadpoolctl import ThreadpoolController

                self._libraries = ThreadpoolController().select(user_api="blas")
            except ImportError:  # where only NumPy exists, threads and BLAS may compete; the results are the same
                self._libraries = False
        return self._libraries.limit(limits=1) if self._libraries else None


_BLAS = _BlasThreads()


def _quietly(work: Callable[[Piece], None]) -> Callable[[Piece], None]:
    """The same work, deaf to "invalid value encountered in matmul".

    OpenBLAS 0.3.31 computes with whatever lies behind a short row and throws that part away (AVX-512, matrix times
    vector, rows of 5 numbers). Where the rubbish is a NaN, NumPy hears of an invalid operation; the product is right.
    """

    def quiet(piece: Piece) -> None:
        with np.errstate(invalid="ignore"):
            work(piece)

    return quiet


def _gelu_in_place(x: Array, coefficients: Sequence[Any]) -> None:
    """GELU of one cache-sized piece, overwriting it."""
    number = x.dtype.type
    a = np.abs(x)
    s = (a - number(CENTRE)) / (a + number(CENTRE))
    tail = np.full_like(s, coefficients[-1])  # R(s) by Horner's rule
    for coefficient in coefficients[-2::-1]:
        tail *= s
        tail += coefficient
    tail *= a  # |x| Phi(-|x|), its exponential last
    np.multiply(a, a, out=s)
    s *= number(-0.5)
    tail *= np.exp(s, out=s)
    np.maximum(x, number(0), out=x)
    x -= tail


def _slices(total: int, step: int) -> Iterator[slice]:
    """Slices of at most `step` that cover range(total)."""
    for start in range(0, total, step):
        yield slice(start, min(start + step, total))


def _processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
