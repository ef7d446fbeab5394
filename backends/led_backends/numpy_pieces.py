"""How the CPU backend shares its work: pieces, the threads that take them, and what is done to a piece.

**Threads.** BLAS has threads of its own. Were both to compute at once, they would ask for each core twice; and the threads of
BLAS go on spinning for a while after their work. So the backend cuts its work into pieces itself, and BLAS stays in the thread
that calls it. NumPy releases Python's lock while it computes, so the pieces do run at the same time. A decoding step has some
fifty products of a tenth to half a millisecond. To hand a piece to a thread and wait for it takes 0.15 ms with
concurrent.futures and 0.05 ms with the two queues here (2 cores, means of 300 and 3,000).

**Products** are cut into tiles that BLAS multiplies where they lie. The cut never depends on the number of threads, so neither
does a bit of any result.

**Activations** overwrite one cache-sized piece of an array, in the array's dtype:

    relu(x)      max(x, 0)
    silu(x)      x sigmoid(x),       sigmoid(z) = 1 / (1 + exp(-z))
    gelu(x)      max(x, 0) - |x| Phi(-|x|)                           gelu_tail.py says why this form
    gelu_new(x)  x sigmoid(2 u),     u = sqrt(2 / pi) (x + 0.044715 x^3)

gelu_new is usually written x (1 + tanh(u)) / 2, and (1 + tanh(u)) / 2 = sigmoid(2 u). The sum cancels for negative u and
loses its digits in float32, the sigmoid does not.
"""

import math
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from led_backends.contract import Array
from led_backends.gelu_tail import CENTRE, GELU_NEW_IS_FLAT, tail_coefficients
from led_backends.notices import warn

# ---- threads ---------------------------------------------------------------------------------------------------------

Piece = TypeVar("Piece")

# Threads that wait for something to do. All backends of a process share them; they end with it.
_jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
_helpers: list[threading.Thread] = []
_lock = threading.Lock()
# Whether this thread is inside a piece. A loop inside a piece runs in that thread alone: helpers that wait for helpers could
# wait for ever.
_here = threading.local()


def blas_at_one_thread() -> AbstractContextManager[None]:
    """While this lasts, each call of BLAS stays in the thread that makes it: for many parallel loops in a row."""
    return BLAS


def inside_a_piece() -> bool:
    """Whether this thread is doing a piece now, so that a parallel loop in it runs in this thread alone."""
    return getattr(_here, "in_a_piece", False)


def quietly(work: Callable[[Piece], None]) -> Callable[[Piece], None]:
    """The same work with NumPy's warning "invalid value encountered in matmul" suppressed.

    OpenBLAS 0.3.31 computes with the numbers behind a short row, too, and discards that part (AVX-512, matrix times
    vector, rows of 5 numbers). If one of them is a NaN, NumPy warns of an invalid operation; the product is right.
    """

    def quiet(piece: Piece) -> None:
        with np.errstate(invalid="ignore"):
            work(piece)

    return quiet


def parallel_for(
    work: Callable[[Piece], None], pieces: Sequence[Piece], threads: int, *, products: bool = True
) -> None:
    """Do the work on every piece, in this thread and up to `threads` - 1 others. A thread that is free takes the next piece.

    Args:
        work: called with each piece. The pieces write to separate places.
        pieces: in any order.
        threads: the most that work at the same time.
        products: whether the work calls BLAS. If not, a single piece leaves BLAS's threads as they are.

    Raises:
        Exception: the first that a piece raised; the pieces after it may not have been begun.
    """
    helpers = min(threads, len(pieces)) - 1
    inside = inside_a_piece()
    if inside or helpers < 1:
        with BLAS if products and not inside else NOTHING:
            for piece in pieces:
                work(piece)
        return
    todo, turn = iter(pieces), threading.Lock()
    failures: list[BaseException] = []
    done: queue.SimpleQueue[None] = queue.SimpleQueue()

    def take_pieces() -> None:
        _here.in_a_piece = True
        try:
            while not failures:
                with turn:
                    piece = next(todo)
                work(piece)
        except StopIteration:
            pass
        except BaseException as failure:
            failures.append(failure)
        finally:
            _here.in_a_piece = False
            done.put(None)

    helpers = _start_helpers(helpers)
    with BLAS:
        for _ in range(helpers):
            _jobs.put(take_pieces)
        take_pieces()
        for _ in range(helpers + 1):
            done.get()
    if failures:
        raise failures[0]


def _start_helpers(count: int) -> int:
    """Start helpers until `count` of them wait for jobs. Returns how many do: fewer where the system has no more threads."""
    if len(_helpers) < count:
        with _lock:
            while len(_helpers) < count:
                helper = threading.Thread(target=_help, name=f"led_ref-{len(_helpers)}", daemon=True)
                try:
                    helper.start()
                except RuntimeError as error:
                    warn(
                        f"The system gives this process no more threads ({error}): it computes the same with "
                        f"{len(_helpers) + 1}. See to `ulimit -u` and to the container's limit of processes."
                    )
                    break
                _helpers.append(helper)
    return min(count, len(_helpers))


def _help() -> None:
    while True:
        _jobs.get()()


class _Blas:
    """Sets BLAS to one thread while any caller needs that. The setting belongs to the process, so callers are counted.

    If each caller saved and restored it, two that overlap would leave it at one thread for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callers = 0
        self._libraries: list[Any] | None = None
        self._before: list[int] = []

    def __enter__(self) -> None:
        """While this lasts, each BLAS call stays in the thread that makes it."""
        with self._lock:
            self._callers += 1
            if self._callers == 1:
                libraries = self._found()
                self._before = [library.get_num_threads() for library in libraries]
                for library in libraries:
                    library.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._callers -= 1
            if self._callers == 0:
                for library, threads in zip(self._found(), self._before, strict=True):
                    library.set_num_threads(threads)

    def _found(self) -> list[Any]:
        """The BLAS libraries of this process, as threadpoolctl sees them."""
        if self._libraries is None:
            try:
                from threadpoolctl import ThreadpoolController

                self._libraries = ThreadpoolController().select(user_api="blas").lib_controllers
            except ImportError:  # where only NumPy exists, threads and BLAS may compete; the results are the same
                self._libraries = []
        return self._libraries


BLAS = _Blas()
NOTHING = nullcontext()


def _forget() -> None:
    """A forked process has none of its parent's threads, and whatever locks they held would stay locked."""
    global _jobs, _helpers, _lock, BLAS
    _jobs, _helpers, _lock, BLAS = queue.SimpleQueue(), [], threading.Lock(), _Blas()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


# ---- tiles of products -----------------------------------------------------------------------------------------------

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


def slices(total: int, step: int, least: int = 1) -> Iterator[slice]:
    """Slices of `step` that cover range(total). The last is shorter, or joined to the one before if it had fewer than `least`.

    BLAS multiplies a row alone by another kernel, which gives other last bits: many rows must not be cut into pieces of few.

    Example:
        >>> list(slices(129, 64)), list(slices(129, 64, least=64))
        ([slice(0, 64, None), slice(64, 128, None), slice(128, 129, None)], [slice(0, 64, None), slice(64, 129, None)])
    """
    start = 0
    while start < total:
        stop = start + step if total - (start + step) >= least else total
        yield slice(start, stop)
        start = stop


# ---- the sliding window's mask ------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def band_corners(first: int, queries: int, keys: int, radius: int) -> tuple[tuple[slice, Array], ...]:
    """The pieces of a (Q, S) tile with something to hide: (columns, what is hidden in them). Most tiles share one.

    Query q sees |first + q - s| <= R, so all that is hidden lies in two corners: left of what the last query sees, and
    right of what the first one does.
    """
    rows = first + np.arange(queries)[:, None]
    left_end = max(0, min(keys, first + queries - 1 - radius))
    right_start = max(first + radius + 1, left_end)
    pieces = []
    for columns in (slice(0, left_end), slice(right_start, keys)):
        if columns.start < columns.stop:
            may_look = abs(rows - np.arange(columns.start, columns.stop)) <= radius
            hidden = ~may_look
            hidden.flags.writeable = False
            pieces.append((columns, hidden))
    return tuple(pieces)


# ---- softmax ----------------------------------------------------------------------------------------------------------

# A softmax whose rows all have their highest score within this distance of 0 need not shift them: exp(30) is 1e13, so that
# even 100,000 of them stay far within float32, and the highest of a row stays far above what is lost beside it.
HARMLESS = 30


def exponentials(scores: Array) -> Array:
    """`exp(score - highest)` over the last axis, in place, and what a row's sum up to: for a row that is hidden, zeros and 1.

    The highest is taken away so that exp stays in range. Where it would anyway, nothing is: the quotient is the same.
    """
    highest = scores.max(-1, keepdims=True, initial=_lowest(scores.dtype))
    if np.abs(highest).max() > HARMLESS:
        scores -= highest
    np.exp(scores, out=scores)
    total: Array = np.einsum("...s->...", scores)[..., None]  # a third of the time of `sum`
    total[total == 0] = 1
    return total


@lru_cache(maxsize=2)
def _lowest(dtype: np.dtype[Any]) -> Any:
    """The lowest number of a dtype: in place of -inf, from which nothing can be taken."""
    return np.finfo(dtype).min


# ---- activations -----------------------------------------------------------------------------------------------------


def relu_in_place(x: Array) -> None:
    """`max(x, 0)`."""
    np.maximum(x, 0, out=x)


def silu_in_place(x: Array) -> None:
    """`x sigmoid(x)`."""
    x *= sigmoid(x)


def gelu_new_in_place(x: Array) -> None:
    """`x sigmoid(2 u)`."""
    z = np.clip(x, -GELU_NEW_IS_FLAT, GELU_NEW_IS_FLAT)
    z *= 1 + 0.044715 * z * z
    z *= 2 * math.sqrt(2 / math.pi)
    x *= sigmoid(z)


def gelu_in_place(x: Array) -> None:
    """`max(x, 0) - |x| Phi(-|x|)`."""
    number, coefficients = x.dtype.type, coefficients_of(x.dtype)
    a = np.abs(x)
    s, tail = a - number(CENTRE), a + number(CENTRE)
    s /= tail
    np.multiply(s, coefficients[-1], out=tail)  # R(s) by Horner's rule
    for coefficient in coefficients[-2:0:-1]:
        tail += coefficient
        tail *= s
    tail += coefficients[0]
    tail *= a  # |x| Phi(-|x|), its exponential last
    np.multiply(a, a, out=s)
    s *= number(-0.5)
    tail *= np.exp(s, out=s)
    x += a  # max(x, 0) = (x + |x|) / 2 without rounding, and faster than NumPy's maximum of an array and a number
    x *= number(0.5)
    x -= tail


@lru_cache(maxsize=2)
def coefficients_of(dtype: np.dtype[Any]) -> list[Any]:
    """The polynomial of gelu_tail.py, as numbers of a dtype."""
    return [dtype.type(c) for c in tail_coefficients(dtype.name)]


def sigmoid(z: Array) -> Array:
    """`1 / (1 + exp(-z))`. exp is given negative numbers only, so it cannot overflow."""
    power = np.exp(-np.abs(z))
    quotient: Array = np.where(z < 0, power, z.dtype.type(1))
    power += 1
    quotient /= power
    return quotient
