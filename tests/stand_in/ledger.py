"""What the stand-in counts: waits for the device, hidden copies, kernels launched, bytes held.

A GPU works behind the program's back: a call only queues work, and Python runs on. Each time Python needs a number that
the device computed (`if x.any()`, `float(x)`, `x.get()`), it must wait for all that is queued. One such wait in every
layer would keep a GPU idle for most of its time, and nothing in the program's text shows it. So they are counted here.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from stand_in.graphs import DEVICE, refuse


class ForbiddenSynchronisationError(RuntimeError):
    """Inside `no_sync()` something waited for the device."""


@dataclass
class Counts:
    """What happened while somebody counted: one entry for each time, in order."""

    syncs: list[str] = field(default_factory=list)
    copies: list[tuple[str, int]] = field(default_factory=list)  # (what copied an operand, its bytes)
    uploads: int = 0
    launches: list[str] = field(default_factory=list)


class Ledger:
    """The one book that all arrays write to."""

    def __init__(self) -> None:
        self.counters: list[Counts] = []
        self.forbidding = 0
        self.limit = 0  # bytes; 0: none
        self._held: dict[int, int] = {}
        self.held_bytes = 0
        self.peak_bytes = 0
        self.hooks: list[Any] = []  # fake_cuda.MemoryHook

    @contextmanager
    def counting(self) -> Iterator[Counts]:
        """Count what happens meanwhile."""
        counts = Counts()
        self.counters.append(counts)
        try:
            yield counts
        finally:
            self.counters.remove(counts)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Meanwhile, waiting for the device is an error."""
        self.forbidding += 1
        try:
            yield
        finally:
            self.forbidding -= 1

    def sync(self, what: str, stream: Any = None) -> None:
        """The program waits for the device."""
        refuse(f"{what}: the current stream is capturing, so D2H transfers are disallowed")
        DEVICE.waited(stream or DEVICE.stream)
        for counts in self.counters:
            counts.syncs.append(what)
        if self.forbidding:
            raise ForbiddenSynchronisationError(f"{what} waits for the device, and no_sync() is in force here.")

    def copy(self, what: str, array: np.ndarray) -> None:
        """An operand is copied first, because it does not lie as the operation needs it."""
        for counts in self.counters:
            counts.copies.append((what, array.nbytes))

    def upload(self) -> None:
        """Numbers go from the host to the device."""
        refuse("the current stream is capturing, so H2D transfers are disallowed")
        DEVICE.works()
        for counts in self.counters:
            counts.uploads += 1

    def launch(self, kernel: str) -> None:
        """A kernel of our own is started."""
        for counts in self.counters:
            counts.launches.append(kernel)

    # ---- memory -----------------------------------------------------------------------------------------------------

    def hold(self, array: np.ndarray) -> None:
        """Remember the bytes behind an array until nobody uses them any more. What is known already changes nothing."""
        while isinstance(array.base, np.ndarray):
            array = array.base
        key = id(array)
        if key in self._held:
            return
        if self.limit and self.held_bytes + array.nbytes > self.limit:
            raise OutOfMemoryError(array.nbytes, self.held_bytes, self.limit)
        DEVICE.allocated(array)
        self._held[key] = array.nbytes
        self.held_bytes += array.nbytes
        self.peak_bytes = max(self.peak_bytes, self.held_bytes)
        for hook in self.hooks:
            size = array.nbytes
            hook.malloc_postprocess(device_id=0, size=size, mem_size=size, mem_ptr=key, pmem_id=key)
        weakref.finalize(array, self._let_go, key)

    def _let_go(self, key: int) -> None:
        size = self._held.pop(key, 0)
        self.held_bytes -= size
        for hook in self.hooks:
            hook.free_postprocess(device_id=0, mem_size=size, mem_ptr=key, pmem_id=key)


class OutOfMemoryError(MemoryError):
    """As cupy.cuda.memory.OutOfMemoryError."""

    def __init__(self, size: int, total: int, limit: int) -> None:
        super().__init__(
            f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes, limit set to: {limit:,} bytes)."
        )


LEDGER = Ledger()
counting, no_sync = LEDGER.counting, LEDGER.no_sync
