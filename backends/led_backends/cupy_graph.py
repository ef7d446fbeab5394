"""Work on a GPU captured as a CUDA graph: some hundred launches by Python become one call of the driver.

**Never run on a GPU so far**, so it is off unless asked for: CupyBackend(graphs=True). The tests run it on the stand-in for
CuPy (tests/stand_in), which refuses what CuPy refuses while it captures:

- products by cuBLAS: every product must be a kernel of our own (linear_few, attend_chunk);
- copies to or from the host, and waiting for the device.

A graph holds operations and addresses, and no array. So whatever memory was allocated while it was captured is kept as long
as the graph, and no part of it is used twice: a step's intermediates are a few megabytes.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from led_backends.contract import Array, CaptureError


@dataclass(frozen=True)
class Graph:
    """A captured piece of work: calling it computes it anew, on the current stream, and waits for nothing."""

    graph: Any  # cupy.cuda.Graph
    found: Array  # what the work returned: the same array each time, with new numbers
    memory: list[Any]  # all that was allocated while capturing
    work: Callable[[], Array]  # for the arrays that it reads

    def __call__(self) -> Array:
        """Queue all of it, and return the array in which the result will be."""
        self.graph.launch()
        return self.found


def capture(cupy: Any, stream: Any, work: Callable[[], Array]) -> Graph:
    """`work` as a graph. Arguments and errors as in the contract's `captured`.

    Args:
        cupy: the module.
        stream: one of its own, non-blocking: the default stream cannot be captured.
        work: called twice, once as it is and once to be captured, when nothing is computed.
    """
    allocate, memory = cupy.cuda.get_allocator(), list[Any]()

    def allocate_and_keep(size: int) -> Any:
        memory.append(allocate(size))
        return memory[-1]

    try:
        cupy.cuda.get_current_stream().synchronize()  # what the work reads was queued there
        with stream:
            work()  # so that all kernels are compiled and loaded, which must not happen while capturing
            stream.synchronize()
            with cupy.cuda.using_allocator(allocate_and_keep):
                graph, found = _captured(stream, work)
    except (RuntimeError, MemoryError) as error:  # CuPy's own are RuntimeErrors, and so is NotImplementedError
        raise CaptureError(f"{type(error).__name__}: {error}") from error
    return Graph(graph, found, memory, work)


def _captured(stream: Any, work: Callable[[], Array]) -> tuple[Any, Array]:
    stream.begin_capture()
    try:
        found = work()
    except BaseException:
        with suppress(RuntimeError):  # the stream stops capturing, whatever it says of what it has
            stream.end_capture()
        raise
    return stream.end_capture(), found
