"""Several processes compute the parts of a step side by side: `--processes`.

Two threads share one interpreter, and where documents are short, it is what they wait for: each operation takes less time than
its call. Processes do not share it. Each has the whole model and computes some parts of the step (step.py); the first process
adds up all gradients in the order of the parts, takes the optimizer's step, and hands the weights on:

    first process    weights -> shared memory     part 1 | part 2 | add 0, 1, 2, 3     AdamW
    second process   weights <- shared memory     part 0 | part 3 | -> shared memory

The second one begins as a copy of the first (Linux's fork), which has read the documents already. A pipe between the two says
what is to be done and what is done; the numbers lie in memory that both see.
"""

import contextlib
import math
import mmap
import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from led_backends.contract import Array, Backend, HostArray
from led_backends.numpy_backend import NumpyBackend
from led_ref.errors import InputError, SettingsError
from led_ref.training.batches import Step
from led_ref.training.step import Add, Part, StepGradients
from led_ref.training.targets import LossSum

_SLOTS = 2  # a process computes its next part while the one before waits to be added
_SECONDS = 1.0  # between two looks whether the other process still lives


def shared_among(count: int, backend: Backend) -> Backend:
    """The backend for each of `count` processes: with its share of the threads.

    Raises:
        SettingsError: for several processes on a GPU, and on systems other than Linux.
    """
    if count == 1:
        return backend
    if not isinstance(backend, NumpyBackend):
        raise SettingsError(
            f"processes is {count}, but {backend.describe()} is a GPU. Leave processes (--processes) away."
        )
    if sys.platform != "linux":
        raise SettingsError(f"processes is {count}, but {sys.platform} has no fork as Linux's. Leave processes away.")
    return NumpyBackend(max(1, backend.threads // count))


def owner(part: int, count: int) -> int:
    """Which of `count` processes computes a part. Parts grow within a batch, so they are dealt there and back again.

    Example:
        >>> [owner(part, 2) for part in range(8)]
        [1, 0, 0, 1, 1, 0, 0, 1]
    """
    place = part % (2 * count)
    return count - 1 - place if place < count else place - count


class Processes:
    """This process and `count` - 1 others. The others begin with the first step, and end with `close` or with this process.

    Args:
        gradients: what they compute.
        count: how many processes, this one included.
    """

    def __init__(self, gradients: StepGradients, count: int) -> None:
        self._gradients, self._count = gradients, count
        self._others: list[_Other] = []
        self._weights: dict[str, HostArray] = {}

    def add_step(self, step: Step, number: int, loss_scale: float, add: Add) -> list[LossSum]:
        """Add up the gradients of a step; the losses of each of its batches.

        Raises:
            InputError: if another process ended; and what one of them raised.
        """
        parts = self._gradients.parts(step)
        if self._count > 1:
            self._hand_out(step, number, loss_scale)
        own = _OwnParts(
            self._gradients, [part for i, part in enumerate(parts) if self._owner(i) == 0], number, loss_scale
        )
        losses: dict[int, LossSum] = {}
        for i, part in enumerate(parts):
            if self._owner(i) == 0:
                loss = own.take(add)
            else:
                other = self._others[self._owner(i) - 1]
                while not other.is_done() and own.compute_ahead():
                    pass
                loss = other.take(add, more=self._waits(i, len(parts)))
            losses[part.batch] = losses[part.batch] + loss if part.batch in losses else loss
        return [losses[batch] for batch in range(len(step))]

    def _owner(self, part: int) -> int:
        return owner(part, self._count)

    def _waits(self, part: int, parts: int) -> bool:
        """Whether the process of this part has another one that needs this one's slot."""
        return sum(self._owner(i) == self._owner(part) for i in range(part + 1, parts)) >= _SLOTS

    def _hand_out(self, step: Step, number: int, loss_scale: float) -> None:
        """Give the weights and the step to the other processes."""
        parameters = self._gradients.trained.parameters
        if not self._others:
            self._weights = _shared(parameters)
            self._begin()
        for name, shared in self._weights.items():
            shared[...] = parameters[name]
        for other in self._others:
            other.connection.send((step, number, loss_scale))

    def _begin(self) -> None:
        import multiprocessing  # here, since a browser has none

        context = multiprocessing.get_context("fork")
        for number in range(1, self._count):
            here, there = context.Pipe()
            memory = mmap.mmap(-1, _SLOTS * _size(self._gradients.trained.parameters))
            work = _Work(self._gradients, number, self._count, there, memory, self._weights, os.getpid())
            process = context.Process(target=work.go, daemon=True, name=f"led-ref train {number}")
            with warnings.catch_warnings():
                # Python 3.12 warns of a lock that another thread may hold. Helpers of the backend hold none while they wait.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            there.close()
            self._others.append(_Other(process, here, memory))

    def close(self) -> None:
        """End the other processes."""
        for other in self._others:
            with contextlib.suppress(OSError):
                other.connection.send(None)
            other.connection.close()
        for other in self._others:
            other.process.join(_SECONDS)
            other.process.kill()
        self._others = []


class _OwnParts:
    """The parts that this process computes, in order, some of them before it is their turn to be added."""

    def __init__(self, gradients: StepGradients, parts: Sequence[Part], number: int, loss_scale: float) -> None:
        self._gradients, self._todo, self._step = gradients, deque(parts), (number, loss_scale)
        self._held: deque[tuple[LossSum, list[tuple[str, Array]]]] = deque()

    def compute_ahead(self) -> bool:
        """Compute the next part and hold its gradients. False: there is none, or enough are held."""
        if not self._todo or len(self._held) == _SLOTS:
            return False
        found: list[tuple[str, Array]] = []
        loss = self._gradients.add_part(
            self._todo.popleft(), *self._step, lambda name, array: found.append((name, array))
        )
        self._held.append((loss, found))
        return True

    def take(self, add: Add) -> LossSum:
        """Add the next part: one that is held, or else it is computed now."""
        if not self._held:
            return self._gradients.add_part(self._todo.popleft(), *self._step, add)
        loss, found = self._held.popleft()
        for name, array in found:
            add(name, array)
        return loss


# ---- memory that processes share -----------------------------------------------------------------------------------------


def _size(arrays: Mapping[str, Array]) -> int:
    """Bytes of all of them, each at a multiple of 64."""
    return sum(_rounded(array.nbytes) for array in arrays.values())


def _rounded(size: int) -> int:
    return max(64, math.ceil(size / 64) * 64)


def _shared(like: Mapping[str, Array]) -> dict[str, HostArray]:
    """Arrays of these shapes that processes begun later see, too."""
    memory, offset, arrays = mmap.mmap(-1, max(64, _size(like))), 0, {}
    for name, array in like.items():
        arrays[name] = _array(memory, offset, array.shape, array.dtype)
        offset += _rounded(array.nbytes)
    return arrays


def _array(memory: mmap.mmap, offset: int, shape: tuple[int, ...], dtype: Any) -> HostArray:
    count = math.prod(shape)
    return np.frombuffer(memory, dtype, count, offset).reshape(shape)


# ---- both ends of a pipe -------------------------------------------------------------------------------------------------

# A part that was computed: its sums of losses, their counts, and where each gradient lies: name, offset, shape, dtype.
_Done = tuple[list[float], tuple[int, ...], list[tuple[str, int, tuple[int, ...], str]]]


@dataclass(frozen=True)
class _Other:
    """Another process, as the first one sees it."""

    process: Any  # multiprocessing.Process
    connection: Any  # one end of a multiprocessing.Pipe
    memory: mmap.mmap

    def is_done(self) -> bool:
        """Whether its next part is computed."""
        return bool(self.connection.poll())

    def take(self, add: Add, *, more: bool) -> LossSum:
        """Wait for its next part, and add it; `more`: it waits until then with a part to come."""
        while not self.connection.poll(_SECONDS):
            if not self.process.is_alive():
                self._ended()
        try:
            done: _Done | BaseException = self.connection.recv()
        except (EOFError, ConnectionError):
            self._ended()
        if isinstance(done, BaseException):
            raise done
        sums, counts, places = done
        for name, offset, shape, dtype in places:
            add(name, _array(self.memory, offset, shape, np.dtype(dtype)).copy())
        if more:
            self.connection.send("added")
        return LossSum(tuple(np.float64(total) for total in sums), counts)

    def _ended(self) -> None:
        self.process.join(_SECONDS)
        raise InputError(
            f"A process of this training ended (exit code {self.process.exitcode}; -9 is most often the system's, when memory "
            "runs out). Go on with resume (--resume), and with fewer processes or smaller batches if it happens again."
        )


@dataclass(frozen=True)
class _Work:
    """What another process does."""

    gradients: StepGradients
    number: int
    count: int
    connection: Any
    memory: mmap.mmap
    weights: Mapping[str, HostArray]
    parent: int

    def go(self) -> None:
        """Compute parts of steps until there are no more."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
        with contextlib.suppress(EOFError, ConnectionError):
            while (job := self._receive()) is not None:
                try:
                    self._compute(*job)
                except Exception as error:
                    self.connection.send(error)

    def _receive(self) -> Any:
        while not self.connection.poll(_SECONDS):
            if os.getppid() != self.parent:  # it was killed
                return None
        return self.connection.recv()

    def _compute(self, step: Step, number: int, loss_scale: float) -> None:
        trained = self.gradients.trained
        for name, shared in self.weights.items():
            trained.parameters[name][...] = shared
        trained.renew()
        mine = [part for i, part in enumerate(self.gradients.parts(step)) if owner(i, self.count) == self.number]
        for place, part in enumerate(mine):
            if place >= _SLOTS and self._receive() is None:  # until the part that lies in this slot was added
                return
            self.connection.send(self._done(part, place % _SLOTS, number, loss_scale))

    def _done(self, part: Part, slot: int, number: int, loss_scale: float) -> _Done:
        offset = slot * (len(self.memory) // _SLOTS)
        places: list[tuple[str, int, tuple[int, ...], str]] = []

        def add(name: str, gradient: Array) -> None:
            nonlocal offset
            assert all(name != one for one, *_ in places)  # a slot has room for one part of each gradient
            _array(self.memory, offset, gradient.shape, gradient.dtype)[...] = gradient
            places.append((name, offset, gradient.shape, gradient.dtype.str))
            offset += _rounded(gradient.nbytes)

        loss = self.gradients.add_part(part, number, loss_scale, add)
        return [float(total) for total in loss.sums], loss.counts, places
