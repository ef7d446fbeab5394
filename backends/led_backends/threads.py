"""Threads of the CPU backend: pieces of work shared among a few of them, while BLAS is held to one thread in each.

BLAS has threads of its own. Were both to compute at once, they would ask for each core twice; and the threads of BLAS go on
spinning for a while after their work. So the backend cuts its work into pieces itself, and BLAS stays in the thread that
calls it. NumPy lets go of Python's lock while it computes, so the pieces do run at the same time.

A decoding step has some fifty products that take a tenth to half a millisecond each. To hand a piece to a thread and wait for
it takes 0.15 ms with concurrent.futures and 0.05 ms with the two queues here (2 cores, means of 300 and 3,000).
"""

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

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
    return BLAS.at_one_thread()


def inside_a_piece() -> bool:
    """Whether this thread is doing a piece now, so that a parallel loop in it runs in this thread alone."""
    return getattr(_here, "in_a_piece", False)


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
    if inside_a_piece() or helpers < 1:
        with BLAS.at_one_thread() if products and not inside_a_piece() else nullcontext():
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

    _start_helpers(helpers)
    with BLAS.at_one_thread():
        for _ in range(helpers):
            _jobs.put(take_pieces)
        take_pieces()
        for _ in range(helpers + 1):
            done.get()
    if failures:
        raise failures[0]


def _start_helpers(count: int) -> None:
    """Start helpers until `count` of them wait for jobs."""
    if len(_helpers) < count:
        with _lock:
            while len(_helpers) < count:
                helper = threading.Thread(target=_help, name=f"led_ref-{len(_helpers)}", daemon=True)
                helper.start()
                _helpers.append(helper)


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

    @contextmanager
    def at_one_thread(self) -> Iterator[None]:
        """While this lasts, each BLAS call stays in the thread that makes it."""
        with self._lock:
            self._callers += 1
            if self._callers == 1:
                libraries = self._found()
                self._before = [library.get_num_threads() for library in libraries]
                for library in libraries:
                    library.set_num_threads(1)
        try:
            yield
        finally:
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


def _forget() -> None:
    """A forked process has none of its parent's threads, and whatever locks they held would stay locked."""
    global _jobs, _helpers, _lock, BLAS
    _jobs, _helpers, _lock, BLAS = queue.SimpleQueue(), [], threading.Lock(), _Blas()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
