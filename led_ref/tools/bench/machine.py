"""The machine that a bench runs on: what it is, how fast it multiplies and reads, and how much memory a process has taken.

The two speeds are limits. An encoder is matrix products and cannot be faster than they are; a decoding step reads weights,
keys and values once and cannot be faster than memory. Both are measured again between the runs of each case, because a
machine that others use too does not stay the same for minutes.
"""

import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

# The sizes of the measured product: the first of a feed-forward, for 4,096 tokens of led-base.
ROWS, INNER, COLUMNS = 4096, 768, 3072
BYTES_READ = 512 * 2**20  # far more than any cache holds
PASSES = 3

# Environment variables that steer the libraries of matrix products. Each of them changes what is measured.
STEERING = ("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def steering() -> dict[str, str]:
    """The variables of `STEERING` that are set."""
    return {name: os.environ[name] for name in STEERING if name in os.environ}


def machine() -> dict[str, Any]:
    """The processor's name, how many of it this process may use, and the memory in GB."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    found: dict[str, Any] = {"processor": name, "processors": os.cpu_count(), "system": platform.platform(terse=True)}
    if hasattr(os, "sched_getaffinity"):
        found["processors"] = len(os.sched_getaffinity(0))
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gb"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    return found


# ---- speed ----------------------------------------------------------------------------------------------------------


def speed_probe() -> Callable[[], dict[str, float]]:
    """A function that measures both limits with all threads, the best of three passes each.

    Returns:
        A function whose result has `sgemm_gflop_s`, 10**9 operations of a float32 product a second, and `memory_gb_s`,
        10**9 bytes read a second. A multiplication and an addition are two operations.
    """
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from led_backends.numpy_backend import NumpyBackend

    threads = NumpyBackend().threads
    pool = ThreadPoolExecutor(threads)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, INNER), dtype=np.float32)
    weight = rng.standard_normal((COLUMNS, INNER), dtype=np.float32)
    product = np.empty((ROWS, COLUMNS), np.float32)
    parts = np.array_split(np.ones(BYTES_READ // 4, np.float32), threads)

    def read() -> None:
        list(pool.map(np.max, parts))

    def probe() -> dict[str, float]:
        multiply_s = min(seconds(lambda: np.matmul(x, weight.T, out=product)) for _ in range(PASSES))
        read_s = min(seconds(read) for _ in range(PASSES))
        return {
            "sgemm_gflop_s": 2 * ROWS * INNER * COLUMNS / multiply_s / 1e9,
            "memory_gb_s": BYTES_READ / read_s / 1e9,
        }

    return probe


def seconds(work: Callable[[], Any]) -> float:
    """The time of some work."""
    started = perf_counter()
    work()
    return perf_counter() - started


# ---- memory ---------------------------------------------------------------------------------------------------------


def peak_memory() -> int:
    """The most memory that this process has had in use, in bytes."""
    return _status("VmHWM") or _peak_by_getrusage()


def resident_memory() -> int:
    """The memory in use by this process, in bytes; where the system does not report it, the peak."""
    return _status("VmRSS") or _peak_by_getrusage()


def _peak_by_getrusage() -> int:
    """Less exact than /proc: a process inherits the figure of the program that started it."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class MemoryWatch:
    """The most memory that is taken from now on, above what is taken now. Linux counts it; elsewhere it is unknown."""

    def __init__(self) -> None:
        self.before = peak_memory()
        self.start = _status("VmRSS")
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # Linux: reset the peak
        except OSError:
            self.start = None

    def peak(self) -> int:
        """The most that this process had in use since its start, in bytes."""
        return max(self.before, peak_memory())

    def above(self) -> int | None:
        """The most that it had in use above what it had when the watch began, in bytes."""
        return None if self.start is None else max(0, peak_memory() - self.start)


def _status(field: str) -> int | None:
    """A size that Linux keeps about this process, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return None
