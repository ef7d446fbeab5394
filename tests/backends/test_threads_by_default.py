"""How many threads are used if nobody says: the variables of BLAS libraries, a container's CPU quota, the processors."""

import os

import pytest

from led_backends.numpy_backend import NumpyBackend
from led_backends.processors import VARIABLES, default_threads, find_threads


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Write files of a machine with eight processors, and ask: `machine({"sys/fs/cgroup/cpu.max": "max 100000"})`."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))

    def ask(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text + "\n")
        return find_threads(tmp_path)

    return ask


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"OMP_NUM_THREADS": "3"}, (3, "OMP_NUM_THREADS=3")),
        ({"OPENBLAS_NUM_THREADS": "11"}, (11, "OPENBLAS_NUM_THREADS=11")),  # more than there are: as the user wants it
        ({"MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "4"}, (1, "MKL_NUM_THREADS=1")),
        ({"OMP_NUM_THREADS": " 2,1"}, (2, "OMP_NUM_THREADS= 2,1")),
        ({"OMP_NUM_THREADS": "0", "MKL_NUM_THREADS": "many", "OPENBLAS_NUM_THREADS": "-1"}, (8, "the processors")),
        ({"OMP_NUM_THREADS": "\u0663"}, (8, "the processors")),
    ],
)
def test_threads_by_environment(machine, monkeypatch, values, expected):
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    default_threads.cache_clear()  # a process looks once
    count, rule = machine({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"})
    assert count == expected[0]
    assert rule.startswith(expected[1])
    assert NumpyBackend().threads == count
    assert NumpyBackend(threads=5).threads == 5
    default_threads.cache_clear()


V2 = {"proc/self/cgroup": "0::/pods/one"}
V1 = {"proc/self/cgroup": "12:memory:/docker/one\n4:cpu,cpuacct:/docker/one\n0::/"}


@pytest.mark.parametrize(
    ("files", "count"),
    [
        (V2 | {"sys/fs/cgroup/pods/one/cpu.max": "200000 100000"}, 2),
        (V2 | {"sys/fs/cgroup/pods/one/cpu.max": "max 100000", "sys/fs/cgroup/pods/cpu.max": "150000 50000"}, 3),
        (V2 | {"sys/fs/cgroup/pods/one/cpu.max": "210000 100000", "sys/fs/cgroup/cpu.max": "900000 100000"}, 3),
        (V2 | {"sys/fs/cgroup/cpu.max": "5000 100000"}, 1),
        (V2 | {"sys/fs/cgroup/pods/one/cpu.max": "9900000 100000"}, 8),
        (V2 | {"sys/fs/cgroup/pods/one/cpu.max": "a fault"}, 8),
        ({"proc/self/cgroup": "0::/../../up", "sys/fs/cgroup/cpu.max": "400000 100000"}, 4),
        (
            V1
            | {f"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_{n}_us": v for n, v in (("quota", "250000"), ("period", "50000"))},
            5,
        ),
        (V1 | {f"sys/fs/cgroup/cpu/docker/one/cpu.cfs_{n}_us": "70000" for n in ("quota", "period")}, 1),
        (V1 | {f"sys/fs/cgroup/cpu/cpu.cfs_{n}_us": v for n, v in (("quota", "-1"), ("period", "100000"))}, 8),
        ({}, 8),
    ],
)
def test_threads_by_quota(machine, files, count):
    found = machine(files)
    assert found.number == count
    assert ("CPU quota of its control group" in found.rule) == (count < 8)
