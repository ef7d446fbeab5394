"""cupy.cuda of the stand-in: one device, its memory and its driver, as far as a program asks for them."""

import types
from typing import Any

from stand_in.ledger import LEDGER, OutOfMemoryError
from stand_in.surface import RECORDED, NotModelledError

# The device that is played. Nothing is measured by it; a program may want to know it before it starts.
MEMORY = 24 << 30
COMPUTE_CAPABILITY = "89"
DRIVER, RUNTIME = 13000, 13000
ATTRIBUTES = {"MaxThreadsPerBlock": 1024, "MultiProcessorCount": 128, "WarpSize": 32, "MaxSharedMemoryPerBlock": 49152}


class CUDARuntimeError(RuntimeError):
    """As cupy.cuda.runtime.CUDARuntimeError."""


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
        LEDGER.sync("Device.synchronize")

    @property
    def mem_info(self) -> tuple[int, int]:
        return MEMORY - LEDGER.held_bytes, MEMORY


class Stream(_Recorded):
    """The default stream."""

    _of = "cuda.Stream"
    ptr = 0

    def synchronize(self) -> None:
        LEDGER.sync("Stream.synchronize")


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
    )
    memory.__dict__.update(OutOfMemoryError=OutOfMemoryError, MemoryPool=MemoryPool)
    cuda.__dict__.update(
        runtime=runtime,
        memory=memory,
        Device=Device,
        Stream=Stream,
        Event=Event,
        MemoryPool=MemoryPool,
        is_available=lambda: True,
        get_current_stream=Stream,
        get_device_id=lambda: 0,
        get_local_runtime_version=lambda: RUNTIME,
        __path__=[],
    )
    return cuda
