"""The shim itself: it runs what is right, and each wrong thing that it is there to notice is seen noticed."""

import numpy as np
import pytest
from cuda_on_cpu import SCHEDULES, KernelError, Kernels, for_the_cpu, kernel_names, load_kernels

# What is right. `reverse` hands numbers from thread to thread; a test takes its barrier out.
RIGHT = """
#define MOST 32
__global__ void reverse(const float *x, float *out, int n) {
    __shared__ float line[64];
    const int i = threadIdx.x;
    line[i] = i < n ? x[blockIdx.x * n + i] : 0.0f;
    __syncthreads();
    if (i < n) out[blockIdx.x * n + i] = line[n - 1 - i];
}
__global__ void shuffle(float *down, float *crossed, float *sum) {
    const float x = threadIdx.x;
    down[threadIdx.x] = __shfl_down_sync(0xffffffffu, x, 5);
    crossed[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x, 3);
    float total = x;
    for (int by = 16; by > 0; by /= 2) total += __shfl_xor_sync(0xffffffffu, total, by);
    sum[threadIdx.x] = total;
}
__global__ void where(int *out) {
    const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * 30 + thread] = block * 100 + thread;
}
__global__ void dynamic(float *out, int n) {
    extern __shared__ float line[];
    for (int i = threadIdx.x; i < n; i += blockDim.x) line[i] = i;
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = line[n - 1 - i];
}
__global__ void within_a_warp(float *out) {
    alignas(16) __shared__ float line[64];
    line[threadIdx.x] = threadIdx.x;
    __syncwarp();
    out[threadIdx.x] = line[threadIdx.x ^ 31];
}
__global__ void __launch_bounds__(MOST) add_one(const float *x, float *out) { out[threadIdx.x] = x[threadIdx.x] + 1.0f; }
"""

WRONG = r"""
__global__ void half_a_barrier(float *out) {
    if (threadIdx.x < 40) __syncthreads();
    out[threadIdx.x] = 1.0f;
}
__global__ void two_barriers(float *out) {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}
__global__ void half_a_warp(float *out) {
    if (threadIdx.x < 7) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}
__global__ void reads_lane_outside(float *out) {
    if (threadIdx.x < 8) out[threadIdx.x] = __shfl_sync(0xffu, 1.0f, 8);
}
__global__ void reads_before(const float *x, float *out) { out[0] = x[-1]; }
__global__ void reads_behind(const float *x, float *out) { out[0] = x[64]; }
__global__ void writes_behind(float *out) { out[64] = 0.0f; }
__global__ void writes_before(float *out) { out[-1] = 0.0f; }
__global__ void beyond_shared(float *out) {
    __shared__ float line[64];
    float *p = line;  // the compiler no longer knows how long it is
    p[threadIdx.x + 1] = 0.0f;
}
__global__ void before_shared(float *out) {
    __shared__ float line[64];
    float *p = line;
    p[(int)threadIdx.x - 1] = 0.0f;
}
__global__ void unwritten_shared(float *out) {
    __shared__ float line[64];
    if (blockIdx.x == 0) line[threadIdx.x] = 1.0f;  // what block 0 left there is not block 1's
    out[threadIdx.x] = line[threadIdx.x];
}
__global__ void without_end(float *out) {
    while (out[0] == 0.0f) __syncthreads();
}
__global__ void beyond_registers(float *out) {
    float own[4] = {};
    own[threadIdx.x] = 1.0f;
    out[threadIdx.x] = own[threadIdx.x];
}
"""


@pytest.fixture(scope="module")
def wrong():
    return load_kernels(WRONG)


@pytest.mark.parametrize("order", SCHEDULES)
@pytest.mark.parametrize("n", [1, 31, 47, 64])
def test_shared_memory_and_barriers_work(order, n):
    x, out = np.arange(3 * n, dtype=np.float32), np.full(3 * n, np.nan, np.float32)
    kernels = load_kernels(RIGHT)
    with kernels.schedule(order):
        kernels.get_function("reverse")((3,), (64,), (x, out, np.int32(n)))
    np.testing.assert_array_equal(out.reshape(3, n), x.reshape(3, n)[:, ::-1])


def test_a_missing_barrier_shows():
    source = RIGHT.replace("__syncthreads();", "").replace("__syncwarp();", "")
    out = np.zeros(64, np.float32)
    kernels = load_kernels(source)
    kernels.get_function("reverse")((1,), (64,), (np.ones(64, np.float32), out, np.int32(64)))
    assert np.isnan(out).any()  # thread 0 read what thread 63 had not written
    kernels.get_function("within_a_warp")((1,), (64,), (out,))
    assert np.isnan(out).any()


def test_a_warp_can_meet_by_itself():
    out = np.zeros(64, np.float32)
    load_kernels(RIGHT).get_function("within_a_warp")((1,), (64,), (out,))
    np.testing.assert_array_equal(out, np.arange(64) ^ 31)


def test_shuffles_exchange_between_lanes():
    x = np.arange(64)
    for order in SCHEDULES:
        kernels = load_kernels(RIGHT)
        down, crossed, total = np.zeros((3, 64), np.float32)
        with kernels.schedule(order, seed=5):
            kernels.get_function("shuffle")((1,), (64,), (down, crossed, total))
        np.testing.assert_array_equal(down, np.where(x % 32 < 27, x + 5, x))
        np.testing.assert_array_equal(crossed, x ^ 3)
        np.testing.assert_array_equal(total, np.where(x < 32, 496, 496 + 32 * 32))


def test_grids_and_blocks_have_three_dimensions():
    out = np.zeros(42 * 30, np.int32)
    load_kernels(RIGHT).get_function("where")((2, 3, 7), (5, 3, 2), (out,))
    np.testing.assert_array_equal(out.reshape(42, 30), 100 * np.arange(42)[:, None] + np.arange(30))


def test_dynamic_shared_memory_size():
    fill = load_kernels(RIGHT).get_function("dynamic")
    out = np.zeros(100, np.float32)
    fill((1,), (64,), (out, np.int32(100)), shared_mem=400)
    np.testing.assert_array_equal(out, np.arange(100)[::-1])
    with pytest.raises(KernelError, match="out of bounds"):
        fill((1,), (64,), (out, np.int32(100)), shared_mem=396)
    with pytest.raises(KernelError, match="49153 bytes of shared memory"):
        fill((1,), (64,), (out, np.int32(100)), shared_mem=48 * 1024 + 1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("half_a_barrier", r"divergent barrier.*thread 0: line 3; thread 40: has returned"),
        ("two_barriers", r"divergent barrier.*line 8.*line 10"),
        ("half_a_warp", r"divergent barrier.*thread 0: line 13; thread 7: has returned"),
        ("reads_lane_outside", r"a shuffle reads a lane that its mask does not name"),
        ("writes_behind", r"out of bounds.*element 64 of argument 0, which has 64"),
        ("beyond_shared", r"out of bounds"),
        ("before_shared", r"a write before the start of shared memory"),
        ("without_end", r"it has no end"),
        ("beyond_registers", r"undefined behaviour"),
    ],
)
def test_silent_gpu_errors_are_reported(wrong, name, said):
    out = np.zeros(64, np.float32)
    for order in SCHEDULES:
        with (
            wrong.schedule(order),
            pytest.raises(KernelError, match=said if order == "natural" else said.split(".*")[0]),
        ):
            wrong.get_function(name)((1,), (64,), (out,))


def test_out_of_bounds_reads_are_reported(wrong):
    x, out = np.zeros(64, np.float32), np.zeros(64, np.float32)
    with pytest.raises(KernelError, match="element 64 of argument 0"):
        wrong.get_function("reads_behind")((1,), (1,), (x, out))
    with wrong.schedule("natural", at_end=False), pytest.raises(KernelError, match="element -1 of argument 0"):
        wrong.get_function("reads_before")((1,), (1,), (x, out))
    with pytest.raises(KernelError, match="wrote just outside one of its arrays"):
        wrong.get_function("writes_before")((1,), (1,), (out,))


def test_shared_memory_is_poisoned_before_each_block(wrong):
    out = np.zeros(64, np.float32)
    wrong.get_function("unwritten_shared")((2,), (64,), (out,))
    assert np.isnan(out).all()


def test_argument_size_and_type_checks():
    reverse = load_kernels(RIGHT).get_function("reverse")
    x = np.zeros(64, np.float32)
    for args, said in [
        ((x, x, 64), r"argument 2 is 64 \(int64\); the kernel takes int32"),
        ((x, x, np.float32(64)), r"float32\); the kernel takes int32"),
        ((x, np.int32(1), np.int32(64)), "argument 1 is .* takes a pointer"),
        ((x, x), "takes 3 arguments, and 2 were given"),
    ]:
        with pytest.raises(KernelError, match=said):
            reverse((1,), (64,), args)
    for grid, block, said in [
        ((1,), (1025,), "1025 threads"),
        ((0,), (64,), "grid of"),
        ((1, 65536), (64,), "grid of"),
    ]:
        with pytest.raises(KernelError, match=said):
            reverse(grid, block, (x, x, np.int32(64)))
    with pytest.raises(KernelError, match=r"no kernel 'revers'.*reverse"):
        load_kernels(RIGHT).get_function("revers")


def test_launch_bounds_hold():
    out = np.zeros(64, np.float32)
    with pytest.raises(KernelError, match="64 threads; its launch bounds allow 1 to 32"):
        load_kernels(RIGHT).get_function("add_one")((1,), (64,), (out, out))


def test_overlapping_arrays_and_views():
    both = np.arange(10, dtype=np.float32)
    load_kernels(RIGHT).get_function("add_one")((1,), (4,), (both[3:7], both[5:9]))
    np.testing.assert_array_equal(both, [0, 1, 2, 3, 4, 4, 5, 5, 6, 9])


def test_unknown_cuda_does_not_compile():
    with pytest.raises(KernelError, match="INFINITY"):
        load_kernels("__global__ void k(float *out) { out[0] = INFINITY; }")  # NVRTC knows it no more than we do
    with pytest.raises(ValueError, match="cannot read '__shared__ float a, b;'"):
        for_the_cpu("__shared__ float a, b;")


# ---- storage types ---------------------------------------------------------------------------------------------------

CONVERT = """
#include <cuda_bf16.h>
#include <cuda_fp16.h>
template <typename T> __global__ void widen(const T *x, float *out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = static_cast<float>(x[i]);
}
template <typename T> __global__ void narrow(const float *x, T *out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = static_cast<T>(x[i]);
}
"""


def converted(kernel: str, x: np.ndarray, dtype: str) -> np.ndarray:
    out = np.zeros(x.size, dtype)
    load_kernels(CONVERT).get_function(kernel)((-(-x.size // 1024),), (1024,), (x, out, np.int32(x.size)))
    return out


def hard_to_round(step_bits: int) -> np.ndarray:
    """Every value with 16 bits, its neighbours among the floats, and the midpoints between two such values and theirs."""
    bits = (np.arange(65536, dtype=np.uint32) << 16)[:, None] + np.uint32(1 << step_bits >> 1)
    near = np.array([-1, 0, 1], np.int64)
    middles = (bits + near).astype(np.uint32)
    random = np.random.default_rng(11).integers(0, 2**32, 60_000, np.uint32)
    found = np.concatenate([middles.ravel(), random]).view(np.float32)
    return found[~np.isnan(found)]


def test_half_is_bit_exact():
    bits = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(converted("widen<__half>", bits, "float32"), bits.view(np.float16).astype(np.float32))
    halves = bits.view(np.float16)[np.isfinite(bits.view(np.float16))].astype(np.float32)
    middles = (halves[:-1] + halves[1:]) / 2  # exact in float32: ties
    x = np.concatenate([hard_to_round(16), middles, np.nextafter(middles, 1), np.float32([65519.99, 65520, 1e38])])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(converted("narrow<__half>", x, "uint16"), x.astype(np.float16).view(np.uint16))


def test_bfloat16_is_bit_exact():
    bits = np.arange(65536, dtype=np.uint16)
    wide = (bits.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(
        converted("widen<__nv_bfloat16>", bits, "float32").view(np.uint32), wide.view(np.uint32)
    )
    x = hard_to_round(16)
    down = (x.view(np.uint32) >> 16).astype(np.uint16)  # towards zero; the next one is one bit pattern on
    exact, low, high = (a.astype(np.float64) for a in (x, wide[down], wide[(down + 1).astype(np.uint16)]))
    beyond = np.copysign(2.0**128, high)
    high = np.where(np.isinf(high), beyond, high)  # where the range ends, round as if it went on
    nearer = np.abs(high - exact) < np.abs(exact - low)
    tie_to_even = (np.abs(high - exact) == np.abs(exact - low)) & (down % 2 == 1)
    with np.errstate(invalid="ignore"):
        expected = np.where(np.isinf(exact), down, down + (nearer | tie_to_even))
    np.testing.assert_array_equal(converted("narrow<__nv_bfloat16>", x, "uint16"), expected)


def test_templates_are_listed_for_every_type():
    assert kernel_names(CONVERT)[3:] == ["narrow<float>", "narrow<__half>", "narrow<__nv_bfloat16>"]
    assert Kernels(CONVERT, ["widen<float>"]).names == ("widen<float>",)


# ---- tensor cores ----------------------------------------------------------------------------------------------------

TENSOR_CORE = """
#include <cuda_fp16.h>
struct alignas(4) Pair { __half low, high; };
__global__ void multiply(const float *a, const float *b, float *c) {
    Pair left[4], right[2];
    float sums[4];
    for (int i = 0; i < 4; ++i) left[i] = {a[threadIdx.x * 8 + 2 * i], a[threadIdx.x * 8 + 2 * i + 1]};
    for (int i = 0; i < 2; ++i) right[i] = {b[threadIdx.x * 4 + 2 * i], b[threadIdx.x * 4 + 2 * i + 1]};
    for (int i = 0; i < 4; ++i) sums[i] = c[threadIdx.x * 4 + i];
    mma_16x8x16(sums, left, right);
    for (int i = 0; i < 4; ++i) c[threadIdx.x * 4 + i] = sums[i];
}
"""


def test_tensor_core_multiplies_its_fragments():
    """Where each number of a warp lies, by the PTX ISA's formulas for mma.m16n8k16: numbers i of lane `lane`."""
    rng = np.random.default_rng(5)
    a, b, c = rng.integers(-3, 4, (16, 16)), rng.integers(-3, 4, (16, 8)), rng.integers(-9, 9, (16, 8))
    lane, of_a, of_b = np.arange(32)[:, None], np.arange(8), np.arange(4)
    group, in_group = lane // 4, lane % 4
    rows_a = np.where(of_a // 2 % 2, group + 8, group)
    columns_a = in_group * 2 + of_a % 2 + 8 * (of_a >= 4)
    rows_b, columns_b = in_group * 2 + of_b % 2 + 8 * (of_b >= 2), np.broadcast_to(group, (32, 4))
    rows_c, columns_c = np.where(of_b >= 2, group + 8, group), in_group * 2 + of_b % 2
    fragments = [
        x[rows, columns].astype(np.float32)
        for x, rows, columns in ((a, rows_a, columns_a), (b, rows_b, columns_b), (c, rows_c, columns_c))
    ]
    kernels = load_kernels(TENSOR_CORE)
    for order in SCHEDULES:
        sums = fragments[2].copy()
        with kernels.schedule(order):
            kernels.get_function("multiply")((1,), (32,), (fragments[0], fragments[1], sums))
        np.testing.assert_array_equal(sums, (a @ b + c)[rows_c, columns_c])
