"""cupy.cuda of the stand-in: one device, its memory and its driver, as far as a program asks for them."""

import ctypes
import types
from typing import Any

import numpy as np
from stand_in import graphs
from stand_in.graphs import DEVICE, CUDARuntimeError, refuse
from stand_in.ledger import LEDGER, OutOfMemoryError
from stand_in.surface import RECORDED, NotModelledError

# The device that is played. Nothing is measured by it; a program may want to know it before it starts.
MEMORY = 24 << 30
COMPUTE_CAPABILITY = "89"
DRIVER, RUNTIME = 13000, 13000
ATTRIBUTES = {"MaxThreadsPerBlock": 1024, "MultiProcessorCount": 128, "WarpSize": 32, "MaxSharedMemoryPerBlock": 49152}


CUBLAS, CUDA_R_16F, COMPUTE_32F = 4242, 2, 68  # a handle; what cuBLAS calls float16, and adding up in float32


class _Recorded:
    """A part of CuPy of which only some names are modelled; of the others it says so."""

    _of = ""

    def __getattr__(self, name: str) -> Any:
        known = {**RECORDED["classes"], **RECORDED["modules"]}[self._of]
        if name in known:
            raise NotModelledError(f"cupy.{self._of}.{name}: the stand-in does not model it yet (fake_cuda.py)")
        raise AttributeError(f"cupy.{self._of} has no attribute {name!r}")


class Device(_Recorded):
    """The one device."""

    _of = "cuda.Device"
    compute_capability = COMPUTE_CAPABILITY
    attributes = ATTRIBUTES

    def __init__(self, device: int = 0) -> None:
        if device != 0:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self.id = device

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def use(self) -> None:
        pass

    def synchronize(self) -> None:
        _wait("Device.synchronize", DEVICE.queued or DEVICE.stream)

    @property
    def mem_info(self) -> tuple[int, int]:
        return MEMORY - LEDGER.held_bytes, MEMORY


class Graph(_Recorded, graphs.Graph):
    """Captured work; only a stream makes one."""

    _of = "cuda.Graph"


class Stream(_Recorded, graphs.Stream):
    """A queue of work; with nothing said a new one, that waits for the default stream and is waited for."""

    _of = "cuda.Stream"

    def __enter__(self) -> "Stream":
        DEVICE.streams.append(self)
        return self

    def __exit__(self, *_: Any) -> None:
        assert DEVICE.streams.pop() is self

    def synchronize(self) -> None:
        _wait("Stream.synchronize", self)

    def begin_capture(self, mode: int | None = None) -> None:
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if not self.non_blocking or DEVICE.stream is not self:
            raise NotModelledError("capturing on a stream that is blocking, or is not the current one")
        if self.capture is not None:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream is capturing already")
        self.capture = graphs.Capture()

    def end_capture(self) -> Graph:
        capture, self.capture = self.capture, None
        if capture is None:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream is not capturing")
        if capture.invalid:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated: operation failed due to a previous error")
        return Graph(capture)

    def is_capturing(self) -> bool:
        return self.capture is not None


DEVICE.streams[0] = Stream(null=True)


def _wait(what: str, stream: graphs.Stream) -> None:
    """The host waits for a stream; while one captures, that is refused, and the capture is lost."""
    if stream.capture is not None or DEVICE.capture is not None:
        for capturing in filter(None, (stream.capture, DEVICE.capture)):
            capturing.invalid = True
        raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing")
    LEDGER.sync(what, stream)


class Event(_Recorded):
    """A mark in the queue."""

    _of = "cuda.Event"

    def record(self, stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        LEDGER.sync("Event.synchronize")


class MemoryPool(_Recorded):
    """Where arrays come from. It counts the bytes that arrays hold now; CuPy's also keeps what was freed."""

    _of = "cuda.MemoryPool"

    def used_bytes(self) -> int:
        return LEDGER.held_bytes

    def total_bytes(self) -> int:
        return LEDGER.held_bytes

    def free_bytes(self) -> int:
        return 0

    def free_all_blocks(self, stream: Any = None) -> None:
        pass

    def get_limit(self) -> int:
        return LEDGER.limit

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        LEDGER.limit = int(MEMORY * fraction) if fraction is not None else size or 0


_POOL = MemoryPool()


class MemoryHook:
    """Records each allocation and each release while it is entered, as CuPy's hook does."""

    def malloc_postprocess(self, *, device_id: int, size: int, mem_size: int, mem_ptr: int, pmem_id: int) -> None:
        pass

    def free_postprocess(self, *, device_id: int, mem_size: int, mem_ptr: int, pmem_id: int) -> None:
        pass

    def __enter__(self) -> "MemoryHook":
        LEDGER.hooks.append(self)
        return self

    def __exit__(self, *_: Any) -> None:
        LEDGER.hooks.remove(self)


def gemm_strided_batched(
    handle: int, turn_a: int, turn_b: int, rows: int, columns: int, inner: int, alpha: int, a: int, a_type: int, a_line: int,
    a_apart: int, b: int, b_type: int, b_line: int, b_apart: int, beta: int, c: int, c_type: int, c_line: int, c_apart: int,
    count: int, compute: int, algorithm: int,
) -> None:  # fmt: skip
    """cublasGemmStridedBatchedEx of float16, from addresses alone, as cuBLAS has it: matrices count along columns."""
    refuse("calling cuBLAS API during stream capture is currently unsupported", NotImplementedError)
    DEVICE.works()
    assert (handle, a_type, b_type, c_type, compute) == (CUBLAS, CUDA_R_16F, CUDA_R_16F, CUDA_R_16F, COMPUTE_32F)
    assert [np.ctypeslib.as_array(ctypes.cast(x, ctypes.POINTER(ctypes.c_float)), (1,))[0] for x in (alpha, beta)] == [
        1,
        0,
    ]

    def matrices(address: int, turned: int, rows: int, columns: int, line: int, apart: int) -> np.ndarray:
        lines, of_line = (rows, columns) if turned else (columns, rows)  # a line is a column in memory
        assert line >= of_line
        size = (count - 1) * apart + (lines - 1) * line + of_line
        numbers = np.frombuffer((ctypes.c_uint16 * size).from_address(address), np.float16)
        found = np.lib.stride_tricks.as_strided(numbers, (count, lines, of_line), (2 * apart, 2 * line, 2))
        return found if turned else found.swapaxes(1, 2)

    product = matrices(a, turn_a, rows, inner, a_line, a_apart).astype(np.float32) @ matrices(
        b, turn_b, inner, columns, b_line, b_apart
    )
    matrices(c, 0, rows, columns, c_line, c_apart)[...] = product


def get_default_memory_pool() -> MemoryPool:
    """The only pool."""
    return _POOL


class _Runtime(_Recorded, types.ModuleType):
    _of = "cuda.runtime"


class _Cuda(_Recorded, types.ModuleType):
    _of = "cuda"


def cuda_module() -> types.ModuleType:
    """cupy.cuda."""
    runtime, cuda, memory = _Runtime("cupy.cuda.runtime"), _Cuda("cupy.cuda"), types.ModuleType("cupy.cuda.memory")
    name = b"stand-in"
    major, minor = divmod(int(COMPUTE_CAPABILITY), 10)
    runtime.__dict__.update(
        CUDARuntimeError=CUDARuntimeError,
        getDeviceCount=lambda: 1,
        getDevice=lambda: 0,
        driverGetVersion=lambda: DRIVER,
        runtimeGetVersion=lambda: RUNTIME,
        memGetInfo=lambda: Device().mem_info,
        getDeviceProperties=lambda device: {"name": name, "major": major, "minor": minor, "totalGlobalMem": MEMORY},
        deviceSynchronize=lambda: LEDGER.sync("deviceSynchronize"),
        is_hip=False,
        CUDA_R_16F=CUDA_R_16F,
    )
    memory.__dict__.update(OutOfMemoryError=OutOfMemoryError, MemoryPool=MemoryPool)
    cuda.__dict__.update(
        runtime=runtime,
        memory=memory,
        Device=Device,
        Stream=Stream,
        Graph=Graph,
        Event=Event,
        MemoryPool=MemoryPool,
        MemoryHook=MemoryHook,
        get_cublas_handle=lambda: CUBLAS,
        is_available=lambda: True,
        get_current_stream=lambda: DEVICE.stream,
        get_allocator=lambda: DEVICE.allocators[-1],
        using_allocator=graphs.using_allocator,
        get_device_id=lambda: 0,
        get_local_runtime_version=lambda: RUNTIME,
        __path__=[],
    )
    return cuda


def cublas_module() -> types.ModuleType:
    """cupy_backends.cuda.libs.cublas, CuPy's own binding."""
    cublas = types.ModuleType("cupy_backends.cuda.libs.cublas")
    cublas.__dict__.update(
        gemmStridedBatchedEx=gemm_strided_batched, CUBLAS_COMPUTE_32F=COMPUTE_32F, CUBLAS_GEMM_DEFAULT=-1
    )
    return cublas
