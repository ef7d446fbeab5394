// The kernels of the CuPy backend: what NumPy-like operations would take several trips through memory for.
//
// A GPU runs a kernel as a grid of blocks; a block is up to 1024 threads that share a little fast memory and can wait for
// each other (__syncthreads); 32 threads in a row are a warp, run in step, and can read each other's registers (shuffles).
// Nearly all that is here is bound by memory, so the aim is always the same: read each number once, in the order in which
// it lies there, and keep what is needed again in registers or in shared memory.
//
// T is how numbers are stored: float, __half or __nv_bfloat16. Whatever is computed is computed in float.
// cupy_backend.py compiles a kernel when it is first needed, for one T (NVRTC, the compiler within CuPy). The tests run the
// same text on a CPU, thread by thread (tests/kernels), so its dialect is small: blocks of one dimension, static shared
// arrays, __syncthreads, __shfl_xor_sync. No pointer is null, since CuPy cannot pass one: where there is no mask or no
// update, a number says so, and the pointer is any.
// cupy_plain.py has the same operations in array notation. Run on one kind of GPU so far, an H100 (docs/gpu_report.md).

#include <cuda_bf16.h>
#include <cuda_fp16.h>

// NVRTC knows no INFINITY. The lowest float is as good a start for a maximum, and better: exp(-inf - LOWEST) is 0, where
// exp(-inf - -inf) would be NaN. So a score of minus infinity, which means hidden, needs no question asked.
#define LOWEST (-3.402823466e38f)
#define WARP 32
#define ALL_LANES 0xffffffffu

// ---- softmax --------------------------------------------------------------------------------------------------------

// A softmax's state over the scores seen so far: the highest one, and the sum of exp(score - highest).
struct Softmax {
    float highest;
    float total;
};

// The states of two sets of scores become that of both: the sum below the lower maximum is brought to the higher one.
// A single score x is the state {x, 1}. One exponential, whichever of the two is higher.
__device__ __forceinline__ Softmax together(Softmax a, Softmax b) {
    const float shrink = expf(-fabsf(a.highest - b.highest));
    if (b.highest > a.highest) return {b.highest, a.total * shrink + b.total};
    return {a.highest, a.total + b.total * shrink};
}

// Softmax over each row of a sliding window's tile, in place: (heads, queries, globals + keys), a block for each row.
// Query q sees the leading columns of the global tokens and, of the keys, those with |first + q - key| <= radius that are
// local (is_local; read only if some_are_not). All else becomes 0, and so does a row that sees nothing.
// With keys = 0 every column is a leading one: the softmax of whole rows.
//
// Pass 1 reads the row and keeps a Softmax for each thread; they are brought together by shuffles within a warp, through
// shared memory among warps. Pass 2 reads the row again (it is still in cache) and writes it. A thread writes just those
// columns that it read itself, so nobody waits between the passes but for the total.
template <typename T>
__global__ void __launch_bounds__(1024)
band_softmax(T* scores, const bool* is_local, int some_are_not, int queries, int globals, int keys, int first, int radius) {
    __shared__ Softmax of_warp[WARP];
    const int columns = globals + keys;
    T* row = scores + (size_t)blockIdx.x * columns;
    const int own_key = first + (int)blockIdx.x % queries;
    const auto sees = [=](int column) {
        const int key = column - globals;
        return key < 0 || (abs(own_key - key) <= radius && (!some_are_not || is_local[key]));
    };

    Softmax mine = {LOWEST, 0.0f};
    for (int column = threadIdx.x; column < columns; column += blockDim.x)
        if (sees(column)) mine = together(mine, {static_cast<float>(row[column]), 1.0f});
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        mine = together(mine, {__shfl_xor_sync(ALL_LANES, mine.highest, distance),
                               __shfl_xor_sync(ALL_LANES, mine.total, distance)});
    if (threadIdx.x % WARP == 0) of_warp[threadIdx.x / WARP] = mine;
    __syncthreads();
    Softmax all = of_warp[0];
    for (int warp = 1; warp < (int)blockDim.x / WARP; ++warp) all = together(all, of_warp[warp]);

    const float share = all.total == 0.0f ? 0.0f : 1.0f / all.total;
    for (int column = threadIdx.x; column < columns; column += blockDim.x)
        row[column] = static_cast<T>(sees(column) ? expf(static_cast<float>(row[column]) - all.highest) * share : 0.0f);
}

// ---- element by element, row by row ---------------------------------------------------------------------------------

// x Phi(x), in place, a thread for each number. erfc and not 1 + erf: far left the two would cancel.
template <typename T>
__global__ void __launch_bounds__(256) gelu(T* numbers, long long count) {
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const float x = static_cast<float>(numbers[i]);
    numbers[i] = static_cast<T>(0.5f * x * erfcf(x * -0.70710678f));
}

__device__ __forceinline__ float sum_over_warp(float x) {
    for (int distance = WARP / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

// LayerNorm over each row of x + update, a warp for each row. The row is read once and stays in registers, PER_LANE
// numbers to a lane, so that the mean and then the variance around it cost no second trip. update has
// update_rows rows (0: there is none) and begins again after the last: positions are the same for every document.
#define PER_LANE 32  // so width is at most 1024, led-large's
template <typename T>
__global__ void __launch_bounds__(128)
layer_norm(const T* x, const T* update, const T* weight, const T* bias, T* out, int rows, int width, int update_rows) {
    const int row = (blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    const int lane = threadIdx.x % WARP;
    if (row >= rows) return;  // the whole warp
    x += (size_t)row * width;
    out += (size_t)row * width;
    if (update_rows > 0) update += (size_t)(row % update_rows) * width;

    float y[PER_LANE];
    float sum = 0.0f;
#pragma unroll  // y can lie in registers only if each of its indices is known to the compiler
    for (int i = 0; i < PER_LANE; ++i) {
        const int column = lane + i * WARP;
        if (column >= width) continue;
        y[i] = static_cast<float>(x[column]);
        if (update_rows > 0) y[i] += static_cast<float>(update[column]);
        sum += y[i];
    }
    const float mean = sum_over_warp(sum) / width;

    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        if (lane + i * WARP >= width) continue;
        y[i] -= mean;
        squares += y[i] * y[i];
    }
    const float scale = 1.0f / sqrtf(sum_over_warp(squares) / width + 1e-5f);
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        const int column = lane + i * WARP;
        if (column >= width) continue;
        out[column] = static_cast<T>(y[i] * scale * static_cast<float>(weight[column]) + static_cast<float>(bias[column]));
    }
}

// ---- attention of few queries to many keys --------------------------------------------------------------------------

// A decoding step reads every key and every value of the document, and that is its time. Two things matter: all Q queries
// (the beams) take each key while it is there, and the reading is spread over the whole GPU although there are only
// B x H heads. So the positions are cut into chunks, a block for each chunk of each head. A block makes the softmax of
// its chunk alone and leaves three things behind: the highest score, the total, the weighted sum of values. attend_combine
// brings the chunks together, exactly as `together` does.
#define CHUNK 256      // positions to a block, and as many threads
#define MAX_WIDTH 128  // of a head, K
#define LANES 8        // that share the product of one key with the queries: they read 32 bytes of it at a time

// One number for each query, side by side, so that a key's number meets them all in few reads of shared memory.
template <int Q>
struct alignas(Q % 4 == 0 ? 16 : 4) PerQuery {
    float of[Q];
};

// q (heads, Q, width), dense. keys and values: (positions, width) for each head, dense within it, one head's beginning
// key_stride and value_stride numbers after the other's (a buffer may have capacity for more positions than it holds).
// may_look, read only if masked: document b's mask of query i begins at b * look_document + i * look_query (0: broadcast).
// heads counts those of all documents, heads_each those of one.
// Left behind: highest, total (heads, chunks, Q) and sums (heads, chunks, Q, width).
template <typename T, int Q>
__global__ void __launch_bounds__(CHUNK, Q > 8 ? 2 : 4)  // so many blocks fit a multiprocessor: 64 registers, or 128
attend_chunk(const T* q, const T* keys, const T* values, const bool* may_look, float* highest, float* total, float* sums,
             int masked, int heads_each, int positions, int width, long long key_stride, long long value_stride,
             long long look_document, long long look_query) {
    using Numbers = PerQuery<Q>;
    __shared__ Numbers q_shared[MAX_WIDTH];  // by column
    __shared__ Numbers weights[CHUNK];       // by position; at first the scores
    const int chunks = (positions + CHUNK - 1) / CHUNK;
    const int head = blockIdx.x / chunks;
    const int start = blockIdx.x % chunks * CHUNK;
    const int count = min(CHUNK, positions - start);
    const int thread = threadIdx.x;
    const int lane = thread % WARP;
    q += (size_t)head * Q * width;
    keys += head * key_stride + (size_t)start * width;
    values += head * value_stride + (size_t)start * width;
    may_look += head / heads_each * look_document + start;
    for (int i = thread; i < Q * width; i += CHUNK) q_shared[i % width].of[i / width] = static_cast<float>(q[i]);
    __syncthreads();

    // Scores. LANES threads to a key; each turn of the loop the block takes CHUNK / LANES keys.
    for (int base = 0; base < CHUNK; base += CHUNK / LANES) {
        const int key = base + thread / LANES;
        float dot[Q] = {};
        if (key < count)
            for (int k = thread % LANES; k < width; k += LANES) {
                const float number = static_cast<float>(keys[(size_t)key * width + k]);
#pragma unroll
                for (int i = 0; i < Q; ++i) dot[i] += number * q_shared[k].of[i];
            }
#pragma unroll
        for (int i = 0; i < Q; ++i) {
            for (int distance = LANES / 2; distance > 0; distance /= 2)
                dot[i] += __shfl_xor_sync(ALL_LANES, dot[i], distance);
            if (key < count && i % LANES == thread % LANES) {
                const bool sees = !masked || may_look[i * look_query + key];
                weights[key].of[i] = sees ? dot[i] : LOWEST;
            }
        }
    }
    __syncthreads();

    // Scores become weights exp(score - highest); a warp to a query.
    for (int i = thread / WARP; i < Q; i += CHUNK / WARP) {
        float peak = LOWEST;
        for (int key = lane; key < count; key += WARP) peak = fmaxf(peak, weights[key].of[i]);
        for (int distance = WARP / 2; distance > 0; distance /= 2)
            peak = fmaxf(peak, __shfl_xor_sync(ALL_LANES, peak, distance));
        float sum = 0.0f;
        for (int key = lane; key < count; key += WARP) {
            const float score = weights[key].of[i];
            const float weight = score == LOWEST ? 0.0f : expf(score - peak);  // hidden: 0, also where all are
            weights[key].of[i] = weight;
            sum += weight;
        }
        sum = sum_over_warp(sum);
        if (lane == 0) {
            highest[(size_t)blockIdx.x * Q + i] = peak;
            total[(size_t)blockIdx.x * Q + i] = sum;
        }
    }
    __syncthreads();

    // Values. `width` threads read a value side by side; as many values at a time as the block has threads for.
    const int teams = CHUNK / width;
    const int team = thread / width;
    float mixed[Q] = {};
    for (int key = team; key < count; key += teams) {
        const float number = static_cast<float>(values[(size_t)key * width + thread % width]);
#pragma unroll
        for (int i = 0; i < Q; ++i) mixed[i] += number * weights[key].of[i];
    }
    __syncthreads();  // all have read their weights: the space is free for the teams' sums, (teams, Q, width)
    float* of_teams = weights[0].of;
    if (team < teams)
#pragma unroll
        for (int i = 0; i < Q; ++i) of_teams[(team * Q + i) * width + thread % width] = mixed[i];
    __syncthreads();
    for (int i = thread; i < Q * width; i += CHUNK) {
        float sum = 0.0f;
        for (int each = 0; each < teams; ++each) sum += of_teams[each * Q * width + i];
        sums[(size_t)blockIdx.x * Q * width + i] = sum;
    }
}

// The chunks of each head brought together, a thread for each number of out (documents, Q, heads_each, width): a query's
// heads side by side, which is how the next linear map reads them. rows = documents * Q * heads_each.
template <typename T>
__global__ void __launch_bounds__(256)
attend_combine(const float* highest, const float* total, const float* sums, T* out, int rows, int chunks, int queries,
               int heads_each, int width) {
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (long long)rows * width) return;
    const int row = i / width;
    const int query = row / heads_each % queries;
    const int head = row / heads_each / queries * heads_each + row % heads_each;  // of all documents'
    const long long first = (long long)head * chunks * queries + query;
    Softmax all = {LOWEST, 0.0f};
    float sum = 0.0f;
    for (int chunk = 0; chunk < chunks; ++chunk) {
        const long long part = first + (long long)chunk * queries;
        const Softmax before = all;
        all = together(all, {highest[part], total[part]});
        sum = sum * expf(before.highest - all.highest) + sums[part * width + i % width] * expf(highest[part] - all.highest);
    }
    out[i] = static_cast<T>(all.total == 0.0f ? 0.0f : sum / all.total);
}

// ---- linear maps of few rows --------------------------------------------------------------------------------------------

// x @ weight^T + bias for as few rows as a decoding step has: x (rows, width), weight (outputs, width), out (rows,
// outputs), rows <= N. The weights are nearly all that is read, and each is read once, for all rows: a warp takes one row
// of them, its lanes side by side, and multiplies it with every row of x, which stay near (in L1). One launch, where a
// product by cuBLAS and the bias are two, and for so few rows it is Python's launches that a step waits for.
template <typename T, int N>
__global__ void __launch_bounds__(256)
linear_few(const T* x, const T* weight, const T* bias, T* out, int rows, int width, int outputs) {
    const int output = (blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    const int lane = threadIdx.x % WARP;
    if (output >= outputs) return;  // the whole warp
    weight += (size_t)output * width;
    float sum[N] = {};
#pragma unroll 4  // so that several reads of weights are on their way at a time
    for (int column = lane; column < width; column += WARP) {
        const float number = static_cast<float>(weight[column]);
#pragma unroll  // as in layer_norm: sum is to lie in registers
        for (int i = 0; i < N; ++i)
            if (i < rows) sum[i] += number * static_cast<float>(x[(size_t)i * width + column]);
    }
#pragma unroll
    for (int row = 0; row < N; ++row) {
        if (row >= rows) continue;
        const float dot = sum_over_warp(sum[row]);
        if (lane == 0) out[(size_t)row * outputs + output] = static_cast<T>(dot + static_cast<float>(bias[output]));
    }
}

// ---- the sliding window in one kernel -----------------------------------------------------------------------------------

// Never run on a GPU so far, and off unless asked for: CupyBackend(fused=True).
//
// As separate operations, scores go to memory, come back for the softmax, go out as weights, and come back once more for
// the values; and each tile of a document takes some nine launches. Here they never leave the chip, and a document takes one
// launch. A block takes ROWS queries of one head and goes through the keys that these can see, KEYS at a time. Each row keeps
// a Softmax of the keys so far and the weighted sum of their values; when a key with a higher score comes, the sum is
// shrunk, as `together` shrinks a total.
//
// A warp takes 16 of the rows. A lane holds, of each 16 x 8 piece of a product, the four numbers that a tensor core gives
// it: rows g and g + 8, columns 2t and 2t + 1, where g = lane / 4 and t = lane % 4. So a row lies in four lanes side by side.
#define ROWS 64
#define WINDOW_THREADS 128
#define PIECE 8  // columns of a piece

// Two numbers of a row side by side, as tensor cores take them.
template <typename T>
struct alignas(2 * sizeof(T)) Pair {
    T low, high;
};

// 16 bytes, which a thread copies at a time.
struct alignas(16) Sixteen {
    unsigned words[4];
};

// sums += a @ b on a tensor core: a is 16 x 16, b 16 x 8. A lane gives, of a, rows g and g + 8 at columns 2t and 2t + 1,
// and then both at columns 2t + 8 and 2t + 9; of b, column g at these four rows (PTX ISA, mma.m16n8k16).
__device__ __forceinline__ void tensor_core(float (&sums)[4], const Pair<__half> (&a)[4], const Pair<__half> (&b)[2]) {
#ifndef __CUDA_ARCH__
    mma_16x8x16(sums, a, b);  // tests/kernels/cuda_on_cpu.h
#else
    const unsigned* x = reinterpret_cast<const unsigned*>(a);
    const unsigned* y = reinterpret_cast<const unsigned*>(b);
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
#else  // Turing takes half of the columns of a at a time
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]) : "r"(x[0]), "r"(x[1]), "r"(y[0]));
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]) : "r"(x[2]), "r"(x[3]), "r"(y[1]));
#endif
#endif
}

__device__ __forceinline__ void tensor_core(float (&sums)[4], const Pair<__nv_bfloat16> (&a)[4],
                                            const Pair<__nv_bfloat16> (&b)[2]) {
#ifndef __CUDA_ARCH__
    mma_16x8x16(sums, a, b);
#elif __CUDA_ARCH__ < 800
    __trap();  // Turing's tensor cores know no bfloat16
#else
    const unsigned* x = reinterpret_cast<const unsigned*>(a);
    const unsigned* y = reinterpret_cast<const unsigned*>(b);
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
#endif
}

// A lane's numbers of 16 queries times KEYS keys, from shared memory. LINE numbers from one row there to the next.
template <int K, int LINE, int PIECES, typename T>
__device__ __forceinline__ void scores_of(float (&scores)[PIECES][4], const T* q, const T* keys, int g, int t) {
    for (int k = 0; k < K; k += 16) {
        Pair<T> a[4], b[2];
#pragma unroll
        for (int i = 0; i < 4; ++i)
            a[i] = *reinterpret_cast<const Pair<T>*>(&q[(g + i % 2 * 8) * LINE + k + i / 2 * 8 + 2 * t]);
#pragma unroll
        for (int piece = 0; piece < PIECES; ++piece) {
#pragma unroll
            for (int i = 0; i < 2; ++i)
                b[i] = *reinterpret_cast<const Pair<T>*>(&keys[(piece * PIECE + g) * LINE + k + i * 8 + 2 * t]);
            tensor_core(scores[piece], a, b);
        }
    }
}

// The same for float, without tensor cores: they would round its factors to 10 bits.
template <int K, int LINE, int PIECES>
__device__ __forceinline__ void scores_of(float (&scores)[PIECES][4], const float* q, const float* keys, int g, int t) {
    for (int k = 0; k < K; k += 2) {
        const Pair<float> above = *reinterpret_cast<const Pair<float>*>(&q[g * LINE + k]);
        const Pair<float> below = *reinterpret_cast<const Pair<float>*>(&q[(g + 8) * LINE + k]);
#pragma unroll
        for (int piece = 0; piece < PIECES; ++piece)
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const int key = piece * PIECE + 2 * t + i;
                const Pair<float> number = *reinterpret_cast<const Pair<float>*>(&keys[key * LINE + k]);
                scores[piece][i] += above.low * number.low + above.high * number.high;
                scores[piece][2 + i] += below.low * number.low + below.high * number.high;
            }
    }
}

// sums (16 x K) += weights (16 x KEYS) @ values. A lane's weights of two pieces side by side are its part of a tensor
// core's left factor as they lie: the same rows, columns 2t and 2t + 1 of either piece.
template <int LINE, int SUMS, int PIECES, typename T>
__device__ __forceinline__ void add_values(float (&sums)[SUMS][4], const float (&weights)[PIECES][4], const T* values,
                                           int g, int t) {
#pragma unroll
    for (int pair = 0; pair < PIECES / 2; ++pair) {
        Pair<T> a[4], b[2];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float* two = &weights[2 * pair + i / 2][i % 2 * 2];
            a[i] = {static_cast<T>(two[0]), static_cast<T>(two[1])};
        }
#pragma unroll
        for (int piece = 0; piece < SUMS; ++piece) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const T* value = &values[(pair * 16 + i * 8 + 2 * t) * LINE + piece * PIECE + g];
                b[i] = {value[0], value[LINE]};
            }
            tensor_core(sums[piece], a, b);
        }
    }
}

// The same for float: each weight comes from the lane that holds it, one of the row's four.
template <int LINE, int SUMS, int PIECES>
__device__ __forceinline__ void add_values(float (&sums)[SUMS][4], const float (&weights)[PIECES][4],
                                           const float* values, int g, int t) {
#pragma unroll
    for (int column = 0; column < PIECES * PIECE; ++column) {
        const int lane = g * 4 + column % PIECE / 2;
        const float above = __shfl_sync(ALL_LANES, weights[column / PIECE][column % 2], lane);
        const float below = __shfl_sync(ALL_LANES, weights[column / PIECE][2 + column % 2], lane);
#pragma unroll
        for (int piece = 0; piece < SUMS; ++piece) {
            const Pair<float> number =
                *reinterpret_cast<const Pair<float>*>(&values[column * LINE + piece * PIECE + 2 * t]);
            sums[piece][0] += above * number.low;
            sums[piece][1] += above * number.high;
            sums[piece][2] += below * number.low;
            sums[piece][3] += below * number.high;
        }
    }
}

// `count` rows of K numbers to shared memory, LINE apart there, and zeros up to `rows`: a value that is not there must not be
// NaN, since its weight 0 would not take that away. Every row begins at a multiple of 16 bytes.
template <int K, int LINE, typename T>
__device__ __forceinline__ void copy_rows(T* to, const T* from, int count, int rows) {
    const int each = 16 / sizeof(T);
    for (int i = threadIdx.x; i < rows * (K / each); i += WINDOW_THREADS) {
        const int row = i / (K / each), column = i % (K / each) * each;
        Sixteen numbers = {};
        if (row < count) numbers = *reinterpret_cast<const Sixteen*>(&from[(size_t)row * K + column]);
        *reinterpret_cast<Sixteen*>(&to[row * LINE + column]) = numbers;
    }
}

// A block for each ROWS tokens of each head. q, k and v (heads, tokens, K): dense within a head, one head's beginning q_stride,
// k_stride and v_stride numbers after the other's. global_k and global_v (heads, globals, K), dense: those that every query
// sees. Of the others it sees those that are local and at most `radius` away.
// out (tokens, heads, K) is dense: a token's heads side by side, which is how the next linear map reads them. A token that is
// not local gets zeros.
template <typename T, int K>
__global__ void __launch_bounds__(WINDOW_THREADS)
window_attend(const T* q, const T* k, const T* v, const T* global_k, const T* global_v, const bool* is_local, T* out,
              int heads, int tokens, int globals, int radius, long long q_stride, long long k_stride, long long v_stride) {
    constexpr int KEYS = sizeof(T) == 4 ? 16 : 64;  // what fits, beside the queries, into shared memory twice
    constexpr int LINE = K + 16 / sizeof(T);        // so that lanes next to each other read different banks
    constexpr int PIECES = KEYS / PIECE;
    alignas(16) __shared__ T q_shared[ROWS * LINE];
    alignas(16) __shared__ T k_shared[KEYS * LINE];
    alignas(16) __shared__ T v_shared[KEYS * LINE];
    const int blocks = (tokens + ROWS - 1) / ROWS;
    const int head = blockIdx.x / blocks;
    const int start = blockIdx.x % blocks * ROWS;
    const int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    const int of_warp = threadIdx.x / WARP * 16;  // its first row in the block
    copy_rows<K, LINE>(q_shared, q + head * q_stride + (size_t)start * K, tokens - start, ROWS);

    Softmax rows[2] = {{LOWEST, 0.0f}, {LOWEST, 0.0f}};  // of rows g and g + 8
    float sums[K / PIECE][4] = {};
    // First the global keys, then those in reach of the block's first or last query.
    for (int part = 0; part < 2; ++part) {
        const T* keys = part == 0 ? global_k + (size_t)head * globals * K : k + head * k_stride;
        const T* values = part == 0 ? global_v + (size_t)head * globals * K : v + head * v_stride;
        const int end = part == 0 ? globals : min(start + ROWS + radius, tokens);
        for (int from = part == 0 ? 0 : max(start - radius, 0); from < end; from += KEYS) {
            __syncthreads();  // all are done with the keys before
            copy_rows<K, LINE>(k_shared, keys + (size_t)from * K, end - from, KEYS);
            copy_rows<K, LINE>(v_shared, values + (size_t)from * K, end - from, KEYS);
            __syncthreads();
            float scores[PIECES][4] = {};
            scores_of<K, LINE>(scores, &q_shared[of_warp * LINE], k_shared, g, t);

            // Hide what a row does not see, and find its highest score: in this lane, then in the row's four.
            float highest[2] = {rows[0].highest, rows[1].highest};
#pragma unroll
            for (int i = 0; i < PIECES * 4; ++i) {
                const int key = from + i / 4 * PIECE + 2 * t + i % 2;
                const int own_key = start + of_warp + g + i % 4 / 2 * 8;
                float& score = scores[i / 4][i % 4];
                if (key >= end || (part == 1 && (abs(own_key - key) > radius || !is_local[key]))) score = LOWEST;
                highest[i % 4 / 2] = fmaxf(highest[i % 4 / 2], score);
            }
#pragma unroll
            for (int row = 0; row < 2; ++row) {
                for (int distance = 1; distance <= 2; distance *= 2)
                    highest[row] = fmaxf(highest[row], __shfl_xor_sync(ALL_LANES, highest[row], distance));
                const float shrink = expf(rows[row].highest - highest[row]);
                rows[row] = {highest[row], rows[row].total * shrink};
#pragma unroll
                for (int piece = 0; piece < K / PIECE; ++piece) {
                    sums[piece][2 * row] *= shrink;
                    sums[piece][2 * row + 1] *= shrink;
                }
            }
            // Scores become weights. A lane adds up those that it holds; the row's four are brought together at the end. In
            // a row that has seen nothing so far, what is hidden weighs exp(LOWEST - LOWEST) = 1; but a local token sees
            // itself in the end, and then all of that shrinks to 0.
#pragma unroll
            for (int i = 0; i < PIECES * 4; ++i) {
                float& score = scores[i / 4][i % 4];
                score = expf(score - rows[i % 4 / 2].highest);
                rows[i % 4 / 2].total += score;
            }
            add_values<LINE>(sums, scores, v_shared, g, t);
        }
    }

#pragma unroll
    for (int row = 0; row < 2; ++row) {
        float total = rows[row].total;
        for (int distance = 1; distance <= 2; distance *= 2) total += __shfl_xor_sync(ALL_LANES, total, distance);
        const int token = start + of_warp + g + 8 * row;
        if (token >= tokens) continue;
        const bool counts = is_local[token];
        const float share = 1.0f / total;
        T* to = out + ((size_t)token * heads + head) * K;
#pragma unroll
        for (int piece = 0; piece < K / PIECE; ++piece) {
            const float* two = &sums[piece][2 * row];
            *reinterpret_cast<Pair<T>*>(&to[piece * PIECE + 2 * t]) = {static_cast<T>(counts ? two[0] * share : 0.0f),
                                                                        static_cast<T>(counts ? two[1] * share : 0.0f)};
        }
    }
}
