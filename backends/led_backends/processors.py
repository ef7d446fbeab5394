"""How many threads the CPU backend uses if its caller does not say: what environment, container and system allow.

The variables are those that BLAS libraries read, so that a user or a scheduler who has set them for NumPy need not learn
another name. Without them a control group's CPU quota counts as so many processors, rounded up: a process with more threads
than that is stopped for a part of each period.
"""

import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

# Of several that are set, the smallest number counts.
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Threads(NamedTuple):
    """A number of threads, and in words what decided it."""

    number: int
    rule: str


def find_threads(root: Path = Path("/")) -> Threads:
    """The number of threads that variables, container and system allow.

    Args:
        root: where `/proc` and `/sys` are.
    """
    asked = [
        Threads(count, f"{name}={os.environ[name]}")
        for name in VARIABLES
        if (count := _whole(os.environ.get(name, "")))
    ]
    if asked:
        return min(asked, key=lambda one: one.number)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed = min(_quotas(root), default=None, key=lambda one: one.number)
    if allowed is not None and allowed.number < usable:
        return allowed
    return Threads(usable, "the processors that this process may use")


def _whole(value: str) -> int:
    """A variable as a number above 0, or 0. OpenMP's has a number for each level of nested loops: the first counts."""
    first = value.partition(",")[0].strip()
    return int(first) if first.isascii() and first.isdecimal() and len(first) < 10 else 0


def _quotas(root: Path) -> Iterator[Threads]:
    """The CPU quotas of this process's control group and those above it, of version 2 and 1.

    Inside a container the files often lie at the top, whatever path the kernel states: each folder on the way up is tried.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # another operating system
        return
    top = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        files: tuple[str, ...]
        if controllers == "":
            files, bases = ("cpu.max",), (top, top / "unified")
        elif "cpu" in controllers.split(","):
            files, bases = ("cpu.cfs_quota_us", "cpu.cfs_period_us"), (top / controllers, top / "cpu")
        else:
            continue
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        for base in bases:
            for depth in range(len(parts), -1, -1):
                folder = base.joinpath(*parts[:depth])
                try:
                    quota, period = " ".join((folder / file).read_text(encoding="ascii") for file in files).split()
                    if quota != "max" and int(quota) > 0:
                        shown = f"the CPU quota of its control group ({quota} of {period} microseconds)"
                        yield Threads(math.ceil(int(quota) / int(period)), shown)
                except (OSError, ValueError, ZeroDivisionError):  # no quota here
                    continue


# Looked up once in a process, as BLAS libraries do: each backend that is made would read the files anew.
default_threads = cache(find_threads)
