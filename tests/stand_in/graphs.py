"""Streams that capture, and graphs: what CuPy and CUDA make of work that is recorded and replayed.

While a stream captures, nothing is computed: an operation is noted down with the addresses of what it reads and writes, and
what it returns holds no numbers yet. Noted here are a function of NumPy and, for each array, a Place. A graph keeps no array
alive: where nobody else does, its memory is another's by the time of the launch, and to read there gives NaN.

As in CuPy 14, a capturing stream refuses cuBLAS (NotImplementedError), copies from and to the host (RuntimeError) and waiting
(CUDARuntimeError, and what was captured is lost). Stricter than CuPy: work on a second stream while nobody has waited for
the first is an error, since the two would run at the same time; so is an operation that the stand-in cannot note down.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from stand_in.surface import NotModelledError

_POISON = 0x5A  # every byte of new memory that holds no floats


class CUDARuntimeError(RuntimeError):
    """As cupy.cuda.runtime.CUDARuntimeError."""


class RaceError(RuntimeError):
    """Two streams work on the device's memory, and nobody waited for the first: on a GPU, they run at the same time."""


def poison(array: np.ndarray) -> np.ndarray:
    """What a memory pool hands out: whatever was there before. NaN, or a number that is no sensible index."""
    if array.dtype.kind in "fc":
        array.fill(np.nan)
    elif array.dtype == bool:
        array.fill(True)
    else:
        array.view(np.uint8).fill(_POISON) if array.ndim and array.flags.c_contiguous else array.fill(_POISON)
    return array


def owner(array: np.ndarray) -> np.ndarray:
    """The array whose memory it is."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


class Place:
    """Where an array lies: an address, a shape and strides, and not the array."""

    def __init__(self, array: np.ndarray) -> None:
        memory = owner(array)
        self.memory = weakref.ref(memory)
        self.offset = array.ctypes.data - memory.ctypes.data
        self.shape, self.strides, self.dtype = array.shape, array.strides, array.dtype

    def array(self) -> np.ndarray:
        """What lies there now."""
        memory = self.memory()
        if memory is None or 0 in self.shape:
            return poison(np.empty(self.shape, self.dtype))
        if not memory.flags.c_contiguous and not memory.flags.f_contiguous:
            raise NotModelledError(f"a graph over memory with strides {memory.strides}")
        buffer = memory if memory.flags.c_contiguous else memory.T
        return np.ndarray(self.shape, self.dtype, buffer, self.offset, self.strides)


def each(change: Callable[[Any], Any], kind: type, value: Any) -> Any:
    """The same nest of tuples, lists and dictionaries, with what is of that kind changed."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(each(change, kind, entry) for entry in value)
    if isinstance(value, dict):
        return {name: each(change, kind, entry) for name, entry in value.items()}
    return value


def arrays_in(value: Any) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    each(found.append, np.ndarray, value)
    return found


class Stream:
    """A queue of work. ptr 0 is the default one."""

    made = 0

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None
    ) -> None:
        Stream.made += not null
        self.ptr, self.non_blocking = (0 if null else Stream.made), non_blocking
        self.capture: Capture | None = None


class Capture:
    """What a stream noted down."""

    def __init__(self) -> None:
        self.operations: list[Callable[[], None]] = []
        self.memory: list[Place] = []  # all that was allocated meanwhile
        self.explained: set[int] = set()
        self.invalid = False

    def note(self, compute: Callable[..., Any], args: Any, kwargs: Any, found: np.ndarray | None = None) -> None:
        """Note an operation; `found`: where its result goes, None: it writes into what it is given."""
        args, kwargs = each(Place, np.ndarray, args), each(Place, np.ndarray, kwargs)
        into = None if found is None else Place(found)

        def operate() -> None:
            result = compute(*each(Place.array, Place, args), **each(Place.array, Place, kwargs))
            if into is not None:
                into.array()[...] = result

        self.operations.append(operate)


class Device:
    """Which stream is the current one, and who allocates."""

    def __init__(self) -> None:
        self.streams = [Stream(null=True)]
        self.allocators: list[Callable[[int], Any]] = [MemoryPointer]
        self.queued: Stream | None = None  # has work that nobody has waited for
        self.pending: np.ndarray | None = None  # what is being allocated

    @property
    def stream(self) -> Stream:
        """The current one."""
        return self.streams[-1]

    @property
    def capture(self) -> Capture | None:
        """What the current stream notes down; None: it works."""
        return self.stream.capture

    def allocated(self, memory: np.ndarray) -> None:
        """New memory: whoever allocates may keep it."""
        self.pending = memory
        self.allocators[-1](memory.nbytes)
        self.pending = None
        if self.capture is not None:
            if id(memory) not in self.capture.explained:
                raise NotModelledError("made while capturing, by what the stand-in does not note down (graphs.py)")
            self.capture.memory.append(Place(memory))

    def waited(self, stream: Stream) -> None:
        """The host has waited for the stream."""
        self.queued = None if self.queued is stream else self.queued

    def works(self) -> None:
        """The current stream gets work.

        Raises:
            RaceError: if another one is not done.
        """
        if self.queued not in (None, self.stream):
            raise RaceError("work on a second stream, and nobody waited for the first: call synchronize()")
        self.queued = self.stream


class MemoryPointer:
    """Memory that was allocated, as cupy.cuda.MemoryPointer; it stays another's until this is dropped."""

    def __init__(self, size: int) -> None:
        self.memory = DEVICE.pending


DEVICE = Device()


@contextmanager
def using_allocator(allocator: Callable[[int], Any] | None = None) -> Iterator[None]:
    """As cupy.cuda.using_allocator."""
    DEVICE.allocators.append(allocator or MemoryPointer)
    try:
        yield
    finally:
        DEVICE.allocators.pop()


def refuse(words: str, kind: type[Exception] = RuntimeError) -> None:
    """What a capturing stream refuses."""
    if DEVICE.capture is not None:
        raise kind(words)


def made(compute: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The result of an operation that makes an array, or a view of one; while capturing it holds no numbers yet."""
    found = compute(*args, **kwargs)
    capture = DEVICE.capture
    memory = [owner(array) for array in arrays_in((args, kwargs))]
    if isinstance(found, np.ndarray) and any(owner(found) is one for one in memory):
        return found
    if capture is None:
        DEVICE.works()
        return found
    if not isinstance(found, np.ndarray | np.generic):
        raise NotModelledError(f"{compute} while capturing")
    found = np.asarray(found)
    capture.explained.add(id(owner(found)))
    capture.note(compute, args, kwargs, found)
    return poison(found)


def done(compute: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """An operation that writes into what it is given; while capturing, nothing is written."""
    if DEVICE.capture is None:
        DEVICE.works()
        compute(*args, **kwargs)
    else:
        DEVICE.capture.note(compute, args, kwargs)


def new(memory: np.ndarray) -> np.ndarray:
    """Memory that is as it was found, which needs no operation."""
    if DEVICE.capture is not None:
        DEVICE.capture.explained.add(id(owner(memory)))
    return poison(memory)


class Graph:
    """As cupy.cuda.Graph."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture

    def launch(self, stream: Any = None) -> None:
        """Everything noted down, on what now lies in its places. Of what was allocated meanwhile nothing is there yet."""
        if stream is not None:
            raise NotModelledError("a launch on another than the current stream")
        refuse("a graph in a graph", NotModelledError)
        from stand_in.ledger import LEDGER

        LEDGER.launch("graph")
        DEVICE.works()
        for place in self._capture.memory:
            poison(place.array())
        with np.errstate(all="ignore"):
            for operate in self._capture.operations:
                operate()
