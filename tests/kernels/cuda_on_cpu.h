// CUDA C on a CPU: enough of it to run backends/led_backends/kernels.cu and to notice what a GPU would not report.
//
// Every thread of a block is a fiber: a stack of its own, left and entered again at barriers and shuffles. One fiber runs
// at a time, and the order is ours to choose. A barrier that is missing shows, because some order lets a thread read what
// another has not written yet (and shared memory begins as NaN), or overwrite what another has not read yet. Out-of-bounds
// access shows, because every buffer ends where memory that nobody may touch begins.
//
// What it does not do: it is no model of speed, of memory order between threads that never meet, or of the GPU's expf.
// Blocks run one after the other. What this file does not define, a kernel cannot use: add it here, with a test.
#pragma once
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <utility>
#include <vector>
#undef INFINITY  // NVRTC knows neither; a kernel that uses them must not compile here
#undef NAN

struct dim3 {
    unsigned x, y, z;
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

#define __global__
#define __device__
#define __constant__ const
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

namespace shim {

// ---- checked memory -------------------------------------------------------------------------------------------------

constexpr size_t NO_MANS_LAND = 1 << 20;  // on each side of a buffer: nobody may read or write there
constexpr unsigned char POISON = 0xff;    // as float, half or bfloat16: NaN. As int: -1

// `bytes` bytes that end right before forbidden memory (or, if not at_end, begin right after it).
struct Guarded {
    unsigned char *pages, *data;
    size_t bytes, room;

    Guarded(size_t bytes, bool at_end) : bytes(bytes) {
        const size_t page = size_t(sysconf(_SC_PAGESIZE));
        room = (bytes + page - 1) / page * page;
        void *all = mmap(nullptr, room + 2 * NO_MANS_LAND, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        pages = (unsigned char *)all + NO_MANS_LAND;
        mprotect(pages, room, PROT_READ | PROT_WRITE);
        data = at_end ? pages + room - bytes : pages;
        memset(pages, POISON, room);
    }
    ~Guarded() { munmap(pages - NO_MANS_LAND, room + 2 * NO_MANS_LAND); }

    // The rest of its pages is ours: is it as we left it?
    bool untouched_around() const {
        for (unsigned char *p = pages; p < pages + room; ++p) {
            if ((p < data || p >= data + bytes) && *p != POISON) return false;
        }
        return true;
    }
};

// Shared memory. tests/kernels/cuda_on_cpu.py rewrites `__shared__ float a[8];` to `auto &a = shim::shared<float[8], 0>();`:
// that way each array has guards of its own, and all of them are poisoned before each block.
inline std::vector<Guarded *> shared_arrays;
inline Guarded *dynamic_shared_array = nullptr;

template <class T, int where>
T &shared() {
    static Guarded *array = nullptr;
    if (!array) shared_arrays.push_back(array = new Guarded(sizeof(T), true));
    return *(T *)array->data;
}

template <class T>
T *dynamic_shared() {
    return (T *)dynamic_shared_array->data;
}

// ---- the threads of a block ------------------------------------------------------------------------------------------

enum State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };
enum Ending { BEGINNING, BLOCK_DONE, BROKEN_OFF };  // how one gets back to launch()
enum Order { NATURAL, REVERSED, SHUFFLED };
constexpr int MOST_THREADS = 1024;
constexpr size_t STACK = 64 << 10;
constexpr int MOST_TURNS = 1 << 20;  // of all threads of a block; more, and it is taken to have no end

struct Fiber {
    jmp_buf place;  // where it goes on
    ucontext_t birth;
    bool born;
    State state;
    int line;  // of the barrier at which it waits
    dim3 index;
};
struct Warp {
    int arrived, meetings;  // how many lanes wait now; how often they have met
    unsigned mask;
    unsigned char lane_values[2][32][8];  // two, since one lane may be at the next shuffle before another has read this one
    unsigned char factors[2][32][6][4];   // of tensor_core: four registers of its left factor, two of its right
};

inline Fiber fibers[MOST_THREADS];
inline Warp warps[MOST_THREADS / 32];
inline unsigned char *stacks = nullptr;
inline int threads, current;    // of a block; which one runs
inline int finished, arrived;  // how many have returned; how many wait at the block's barrier
inline int turns;              // how often a thread has had its turn
inline void (*body)(void **);
inline void **arguments;
inline jmp_buf launcher;
inline char complaint[512];

// Who may run is a set of bits, one per place in the order; the first bit runs. So a warp gets as far ahead of the others
// as the barriers let it.
inline Order order;
inline std::mt19937 dice;
inline int place_of[MOST_THREADS], thread_at[MOST_THREADS];
inline uint64_t ready[MOST_THREADS / 64];

inline void draw_order() {
    for (int i = 0; i < threads; ++i) thread_at[i] = order == REVERSED ? threads - 1 - i : i;
    if (order == SHUFFLED) std::shuffle(thread_at, thread_at + threads, dice);
    for (int i = 0; i < threads; ++i) place_of[thread_at[i]] = i;
}

inline void make_ready(int thread) {
    fibers[thread].state = READY;
    ready[place_of[thread] / 64] |= uint64_t(1) << place_of[thread] % 64;
}

// The first that may run, or -1.
inline int next_ready() {
    for (int word = 0; word <= (threads - 1) / 64; ++word) {
        if (ready[word]) {
            const int bit = __builtin_ctzll(ready[word]);
            ready[word] &= ready[word] - 1;
            return thread_at[word * 64 + bit];
        }
    }
    return -1;
}

[[noreturn]] inline void complain(const char *what, int a, int b) {
    snprintf(complaint, sizeof complaint, "%s (block %u,%u,%u; thread %d: %s %d; thread %d: %s %d)", what, blockIdx.x,
             blockIdx.y, blockIdx.z, a, fibers[a].state == DONE ? "has returned" : "line", fibers[a].line, b,
             fibers[b].state == DONE ? "has returned" : "line", fibers[b].line);
    _longjmp(launcher, BROKEN_OFF);
}

[[noreturn]] inline void run_next() {
    const int next = next_ready();
    if (++turns > MOST_TURNS) complain("it has no end", current, current);
    current = next;
    if (current < 0) {
        if (finished == threads) _longjmp(launcher, BLOCK_DONE);
        int waiting = 0, other = 0;  // somebody waits for somebody who never comes
        while (fibers[waiting].state == DONE) ++waiting;
        while (other < threads - 1 &&
               (fibers[other].state == fibers[waiting].state && fibers[other].line == fibers[waiting].line)) {
            ++other;
        }
        complain("divergent barrier: not every thread comes to it", waiting, other);
    }
    threadIdx = fibers[current].index;
    if (fibers[current].born) _longjmp(fibers[current].place, 1);
    fibers[current].born = true;
    setcontext(&fibers[current].birth);
    __builtin_unreachable();
}

inline void wait(State state, int line) {
    fibers[current].state = state;
    fibers[current].line = line;
    if (state == READY) make_ready(current);
    if (!_setjmp(fibers[current].place)) run_next();
}

// A fiber lives through many blocks: it is born once and then runs the body again and again.
inline void life() {
    for (;;) {
        body(arguments);
        ++finished;
        fibers[current].line = 0;
        wait(DONE, 0);
    }
}

inline void block_barrier(int line) {
    fibers[current].line = line;
    if (++arrived < threads) return wait(AT_BLOCK_BARRIER, line);
    arrived = 0;
    draw_order();
    for (int t = 0; t < threads; ++t) {
        if (fibers[t].line != line) complain("divergent barrier: threads wait at different ones", t, current);
        make_ready(t);
    }
    wait(READY, line);
}

// All lanes that the mask names meet here.
inline void warp_barrier(unsigned mask, int line) {
    const int first = current / 32 * 32, lanes = std::min(32, threads - first);
    const unsigned there = lanes == 32 ? 0xffffffffu : (1u << lanes) - 1;
    fibers[current].line = line;
    if (mask & ~there) complain("the mask names lanes that the block does not have", current, threads - 1);
    if (!(mask >> (current - first) & 1)) complain("a lane calls that its mask does not name", current, current);
    Warp &warp = warps[current / 32];
    if (warp.arrived && warp.mask != mask) complain("lanes of a warp give different masks", current, current);
    warp.mask = mask;
    if (++warp.arrived < __builtin_popcount(mask)) return wait(AT_WARP_BARRIER, line);
    warp.arrived = 0;
    ++warp.meetings;
    for (int t = first; t < first + lanes; ++t) {
        if (!(mask >> (t - first) & 1)) continue;
        if (fibers[t].line != line) complain("divergent warp: lanes wait at different lines", t, current);
        make_ready(t);
    }
    wait(READY, line);
}

template <class T>
T exchange(unsigned mask, T value, int source, int line) {
    static_assert(sizeof(T) <= 8);
    Warp &warp = warps[current / 32];
    auto &values = warp.lane_values[warp.meetings % 2];
    memcpy(values[current % 32], &value, sizeof(T));
    warp_barrier(mask, line);
    if (!(mask >> source & 1)) complain("a shuffle reads a lane that its mask does not name", current, current);
    memcpy(&value, values[source], sizeof(T));
    return value;
}

// What mma.sync.m16n8k16 does, by the PTX ISA's account of who holds what (9.7.14, fragments of m16n8k16): lane 4g + t holds
// rows g and g + 8 of the left factor (its registers 0 and 1 at columns 2t and 2t + 1, 2 and 3 at columns 2t + 8 and 2t + 9),
// column g of the right one (at rows 2t, 2t + 1, and then 2t + 8, 2t + 9), and of the sums rows g and g + 8 at columns 2t and
// 2t + 1. The order in which a GPU adds is its own.
template <class Pair>
void tensor_core(float (&sums)[4], const Pair (&a)[4], const Pair (&b)[2], int line) {
    static_assert(sizeof(Pair) == 4);
    Warp &warp = warps[current / 32];
    auto &factors = warp.factors[warp.meetings % 2];
    memcpy(factors[current % 32][0], a, sizeof a);
    memcpy(factors[current % 32][4], b, sizeof b);
    warp_barrier(0xffffffffu, line);
    const auto number = [&](int lane, int which, int half) {
        Pair pair;
        memcpy(&pair, factors[lane][which], sizeof pair);
        return float(half ? pair.high : pair.low);
    };
    for (int i = 0; i < 4; ++i) {
        const int row = current % 32 / 4 + i / 2 * 8, column = current % 4 * 2 + i % 2;
        for (int k = 0; k < 16; ++k) {
            sums[i] += number(row % 8 * 4 + k % 8 / 2, row / 8 + k / 8 * 2, k % 2) *
                       number(column * 4 + k % 8 / 2, 4 + k / 8, k % 2);
        }
    }
}

// ---- launching -------------------------------------------------------------------------------------------------------

inline void on_signal(int number, siginfo_t *info, void *) {
    snprintf(complaint, sizeof complaint, "%s at %p (block %u,%u,%u; thread %d, last seen at line %d)",
             number == SIGILL || number == SIGTRAP ? "undefined behaviour" : "out of bounds", info->si_addr, blockIdx.x,
             blockIdx.y, blockIdx.z, current, fibers[current].line);
    _longjmp(launcher, BROKEN_OFF);
}

constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP};

inline void bear_fibers() {
    if (!stacks) {
        stacks = (unsigned char *)mmap(nullptr, STACK * MOST_THREADS, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    for (int t = 0; t < MOST_THREADS; ++t) {
        mprotect(stacks + t * STACK, size_t(sysconf(_SC_PAGESIZE)), PROT_NONE);  // a stack that grows too far stops here
        getcontext(&fibers[t].birth);
        fibers[t].birth.uc_stack.ss_sp = stacks + t * STACK;
        fibers[t].birth.uc_stack.ss_size = STACK;
        makecontext(&fibers[t].birth, life, 0);
        fibers[t].born = false;
    }
}

inline void run_block() {
    for (Guarded *array : shared_arrays) memset(array->pages, POISON, array->room);
    if (dynamic_shared_array) memset(dynamic_shared_array->pages, POISON, dynamic_shared_array->room);
    arrived = finished = turns = 0;
    memset(warps, 0, sizeof warps);
    memset(ready, 0, sizeof ready);
    draw_order();
    for (int t = 0; t < threads; ++t) {
        fibers[t].line = 0;
        fibers[t].index = {t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y)};
        make_ready(t);
    }
    run_next();
}

inline void check_shared() {
    for (Guarded *array : shared_arrays) {
        if (!array->untouched_around()) snprintf(complaint, sizeof complaint, "a write before the start of shared memory");
    }
}

// Runs all blocks; "" or what is wrong. Everything that lives across a jump is static: a jump may lose what is in registers.
inline const char *launch(void (*kernel)(void **), dim3 grid, dim3 block, size_t shared_bytes, Order how, unsigned seed,
                          void **args) {
    static bool fibers_are_fresh = false;
    static struct sigaction before[4];
    static stack_t stack_before;
    static unsigned char signal_stack[64 << 10];
    static unsigned done, blocks;
    if (!fibers_are_fresh) bear_fibers();
    fibers_are_fresh = true;
    complaint[0] = 0;
    body = kernel, arguments = args, order = how, gridDim = grid, blockDim = block;
    dice.seed(seed);
    threads = int(block.x * block.y * block.z);
    dynamic_shared_array = shared_bytes ? new Guarded(shared_bytes, true) : nullptr;
    struct sigaction ours = {};
    ours.sa_sigaction = on_signal;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    const stack_t own = {signal_stack, 0, sizeof signal_stack};
    sigaltstack(&own, &stack_before);
    for (int i = 0; i < 4; ++i) sigaction(SIGNALS[i], &ours, &before[i]);

    done = 0, blocks = grid.x * grid.y * grid.z;
    const int how_it_ended = _setjmp(launcher);
    if (how_it_ended == BLOCK_DONE) {
        ++done;
        check_shared();
    }
    if (how_it_ended == BROKEN_OFF) {
        fibers_are_fresh = false;  // they stand in the middle of something
    } else if (done < blocks && !complaint[0]) {
        blockIdx = {done % gridDim.x, done / gridDim.x % gridDim.y, done / (gridDim.x * gridDim.y)};
        run_block();  // comes back at _setjmp
    }
    for (int i = 0; i < 4; ++i) sigaction(SIGNALS[i], &before[i], nullptr);
    sigaltstack(&stack_before, nullptr);
    delete dynamic_shared_array;
    dynamic_shared_array = nullptr;
    return complaint;
}

// How a kernel is called with `void **`, as the driver does it: each argument has the size that its type says.
template <class... Parameters, size_t... i>
void unpack(void (*kernel)(Parameters...), void **args, std::index_sequence<i...>) {
    kernel(*(std::remove_cv_t<Parameters> *)args[i]...);
}

template <auto kernel>
struct Entry;
template <class... Parameters, void (*kernel)(Parameters...)>
struct Entry<kernel> {
    static void call(void **args) { unpack(kernel, args, std::index_sequence_for<Parameters...>()); }

    // One letter for each parameter: P pointer, f/d float or double, b bool, i/l a whole number of 4 or 8 bytes.
    template <class P>
    static constexpr char letter() {
        if (std::is_pointer_v<P>) return 'P';
        if (std::is_floating_point_v<P>) return sizeof(P) == 4 ? 'f' : 'd';
        if (std::is_same_v<P, bool>) return 'b';
        return std::is_integral_v<P> && sizeof(P) == 4 ? 'i' : std::is_integral_v<P> && sizeof(P) == 8 ? 'l' : '?';
    }
    static constexpr char signature[] = {letter<std::remove_cv_t<Parameters>>()..., 0};
};

}  // namespace shim

// ---- what kernels call -----------------------------------------------------------------------------------------------

#define __syncthreads() shim::block_barrier(__LINE__)
#define __syncwarp(...) shim::warp_barrier(shim::mask_of(__VA_ARGS__), __LINE__)
#define __shfl_sync(mask, value, lane) shim::exchange(mask, value, (lane) & 31, __LINE__)
#define __shfl_xor_sync(mask, value, bits) shim::exchange(mask, value, (shim::current % 32) ^ (bits), __LINE__)
#define mma_16x8x16(sums, a, b) shim::tensor_core(sums, a, b, __LINE__)
#define __shfl_down_sync(mask, value, by) shim::exchange(mask, value, shim::at_most_31(shim::current % 32, by), __LINE__)

namespace shim {
inline unsigned mask_of(unsigned mask = 0xffffffffu) { return mask; }
inline int at_most_31(int lane, int by) { return lane + by > 31 ? lane : lane + by; }
}  // namespace shim

inline float __expf(float x) { return std::exp(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __int_as_float(int bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
template <class T>
T __ldg(const T *p) {
    return *p;
}
template <class T>
T min(T a, T b) {
    return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
    return a < b ? b : a;
}
