"""Each kernel, type and architecture compiles with NVRTC, spills nothing and stays within its budget. No GPU is needed.

Run by `make kernels`, which installs the compiler; not by `make test`. The budgets hold for the version pinned in
pyproject.toml (the extra `kernels`): another one hands out registers otherwise.
"""

import itertools
from dataclasses import dataclass

import nvrtc
import pytest
from cuda_on_cpu import KERNELS_CU, TYPES, launch_bounds

pytestmark = pytest.mark.nvrtc

# What a multiprocessor has, from CUDA's table of compute capabilities: the least of 7.5, 8.0, 9.0 and 10.0.
REGISTERS = 65536
MOST_REGISTERS = 255  # of a thread
SHARED = 48 * 1024  # of a block, without asking for more
THREADS = 1024  # that run at a time on 7.5; the others have 2048


@dataclass(frozen=True)
class Budget:
    """At least `threads` of a kernel are to fit a multiprocessor, which has 65,536 registers; and why so many."""

    threads: int
    shared: int
    why: str

    @property
    def registers(self) -> int:
        """Of a thread. Registers are handed out 8 at a time."""
        return min(REGISTERS // self.threads // 8 * 8, MOST_REGISTERS)


BUDGETS = {
    "band_softmax": Budget(
        2048, 32 * 8, "waits for memory only: as many threads as there can be; a state for each warp"
    ),
    "gelu": Budget(2048, 0, "waits for memory only: as many threads as there can be"),
    "layer_norm": Budget(768, 0, "holds 32 numbers of its row a thread: 24 rows at a time of 1024 numbers"),
    "linear_few": Budget(768, 0, "waits for memory; up to 16 sums a thread, and four reads of weights on their way"),
    "attend_chunk": Budget(
        1024, (256 + 128) * 4, "4 blocks, as its launch bounds say; shared: a number a query for each"
    ),
    "attend_chunk, Q > 8": Budget(
        512, (256 + 128) * 4, "2 blocks: one number in registers for each of up to 16 queries"
    ),
    "attend_combine": Budget(1536, 0, "waits for memory only; it runs for microseconds"),
    "window_attend": Budget(
        256, (64 + 2 * 64) * 72 * 2, "2 blocks, whose turns hide each other's waiting; shared: queries, keys, values"
    ),
}
QUERIES = (1, 2, 4, 5, 8, 16)  # greedy, the usual numbers of beams, the limit of either budget
ROWS, WIDTHS = (1, 2, 4, 8, 16), (16, 32, 64)  # all that the backend asks for


@pytest.fixture(scope="session", params=nvrtc.ARCHITECTURES, ids="sm_{}".format)
def taken(request):
    """Everything, compiled for one architecture."""
    source = KERNELS_CU.read_text("utf-8")
    plain = [name for name in launch_bounds(source) if name not in ("attend_chunk", "linear_few", "window_attend")]
    names = [f"{name}<{stored}>" for name, stored in itertools.product(plain, TYPES)]
    names += [f"attend_chunk<{stored}, {q}>" for stored, q in itertools.product(TYPES, QUERIES)]
    names += [f"linear_few<{stored}, {n}>" for stored, n in itertools.product(TYPES, ROWS)]
    names += [f"window_attend<{stored}, {k}>" for stored, k in itertools.product(TYPES, WIDTHS)]
    return nvrtc.compile_kernels(source, names, request.param)


def budget_of(name: str) -> tuple[Budget, int]:
    """The budget of an instance, and for how many queries it is."""
    kernel, _, rest = name.partition("<")
    queries = int(rest.rstrip(">").split(", ")[1]) if ", " in rest else 1
    return BUDGETS["attend_chunk, Q > 8" if kernel == "attend_chunk" and queries > 8 else kernel], queries


def test_kernel_budgets(taken):
    assert {name.split("<")[0] for name in taken} == {name.split(",")[0] for name in BUDGETS}
    for name, found in taken.items():
        budget, queries = budget_of(name)
        assert (found.spills, found.stack) == (0, 0), f"{name} spills: {found}"
        assert found.registers <= budget.registers, (
            f"{name}: {found}; {budget.threads} threads are to fit: {budget.why}"
        )
        assert found.shared <= min(budget.shared * queries, SHARED), f"{name}: {found}; {budget}"


def test_shared_memory_allows_resident_threads(taken):
    of_block = launch_bounds(KERNELS_CU.read_text("utf-8"))
    for name, found in taken.items():
        budget, _ = budget_of(name)
        at_a_time = -(-min(budget.threads, THREADS) // of_block[name.split("<")[0]])
        assert at_a_time * found.shared <= 64 * 1024, (
            f"{name}: {at_a_time} blocks of {found.shared} bytes"
        )  # what 7.5 has


def test_compiler_version_is_pinned():
    assert nvrtc.version() == "13.0", "registers are handed out otherwise by another one: look at the budgets again"


def test_compile_errors_are_reported():
    with pytest.raises(nvrtc.CompilerError, match="INFINITY"):
        nvrtc.compile_kernels("__global__ void k(float* x) { *x = INFINITY; }", ["k"], 80)


def test_spills_and_stack_in_the_report():
    source = """
    template <int n> __global__ void __launch_bounds__(1024, 2) k(float* x) {  // 32 registers a thread
        float y[n];
        for (int i = 0; i < n; ++i) y[i] = x[i * 1024 + threadIdx.x];
        __syncthreads();
        for (int i = 0; i < n; ++i) x[i * 1024 + threadIdx.x] = y[n - 1 - i] * y[i];
    }"""
    found = nvrtc.compile_kernels(source, ["k<4>", "k<64>"], 80)
    assert found["k<4>"].spills == 0 < found["k<64>"].spills
    assert found["k<64>"].stack > 0
    with pytest.raises(nvrtc.CompilerError, match="another form"):
        nvrtc.read_report("ptxas info : Compiling entry function 'k' for 'sm_80'\nsomething new")
