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
