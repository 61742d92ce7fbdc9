// Queries that read the same keys, a chunk of 64 positions at a time: scores, softmax weights, and
// weighted values, which join those of the chunks before. One text for every ISA variant.
#pragma once
#include <type_traits>

#include "kernels/math.h"
#include "kernels/variant.h"

namespace bw::BW_ISA_NAME {
namespace {

inline VecF load_element(const uint16_t* p) { return load_half(p); }
inline VecF load_element(const float* p) { return load(p); }

// Fetches what lies `ahead` bytes from here: the same place of the next chunk's page.
template <typename T>
inline void prefetch(const T* here, ptrdiff_t ahead) {
    __builtin_prefetch(reinterpret_cast<const char*>(here) + ahead);
}

template <int N>
using Count = std::integral_constant<int, N>;

// Those of the library could be shared with other variants' files.
inline int smaller(int a, int b) { return a < b ? a : b; }
inline int larger(int a, int b) { return a > b ? a : b; }

constexpr float kLowest = -__builtin_inff();

// How many sums a kernel keeps in registers: heads times blocks of keys, or times vectors of d.
#if defined(BW_ISA_AVX512)
constexpr int kSums = 16;
constexpr int kMostHeads = 8;
#else
constexpr int kSums = 4;
constexpr int kMostHeads = 4;
#endif

// Visible places [from, to) of a chunk, cut to block b of 16 keys.
struct Lanes {
    int from, to;
};
inline Lanes lanes_of(int from, int to, int b) {
    const int first = from > 16 * b ? from - 16 * b : 0;
    const int stop = to - 16 * b < 16 ? to - 16 * b : 16;
    return {first < 16 ? first : 16, stop > 0 ? stop : 0};
}

// scores[h][16 b ...] = q[h] . k over d ascending, for B blocks of keys from block b on.
template <int H, int B, typename T>
inline void score_blocks(const float* q, int dim, const T* keys, ptrdiff_t ahead, int b, VecF scale,
                         float* scores) {
    VecF sums[H][B];
    for (int h = 0; h < H; h++)
        for (int i = 0; i < B; i++) sums[h][i] = zero();
    for (int d = 0; d < dim; d++) {
        VecF k[B];
        for (int i = 0; i < B; i++) {
            const T* at = keys + (static_cast<size_t>(b + i) * dim + d) * 16;
            prefetch(at, ahead);
            k[i] = load_element(at);
        }
        for (int h = 0; h < H; h++) {
            const VecF element = set1(q[h * dim + d]);
            for (int i = 0; i < B; i++) sums[h][i] = fma(element, k[i], sums[h][i]);
        }
    }
    for (int h = 0; h < H; h++)
        for (int i = 0; i < B; i++)
            store(scores + h * kPage + (b + i) * 16, mul(sums[h][i], scale));
}

// out[h][d] = fma(e[h][j], v[j][d], out[h][d]) over the visible j, for N vectors of d at a time.
template <int H, int N, typename T>
inline void value_vectors(const float* e, const T* v, ptrdiff_t ahead, int from, int to, int stride,
                          float* out, int out_stride) {
    VecF acc[H][N];
    for (int h = 0; h < H; h++)
        for (int i = 0; i < N; i++) acc[h][i] = zero();
    for (int j = from; j < to; j++) {
        const T* row = v + static_cast<size_t>(j) * stride;
        VecF value[N];
        for (int i = 0; i < N; i++) value[i] = load_element(row + 16 * i);
        prefetch(row, ahead);
        for (int h = 0; h < H; h++) {
            const VecF weight = set1(e[h * kPage + j]);
            for (int i = 0; i < N; i++) acc[h][i] = fma(weight, value[i], acc[h][i]);
        }
    }
    for (int h = 0; h < H; h++)
        for (int i = 0; i < N; i++) store(out + h * out_stride + 16 * i, acc[h][i]);
}

// Softmax weights of one head's chunk, in place of its scores; returns their largest score and sum.
inline float weigh(float* scores, int from, int to, float* sum) {
    VecF top = set1(kLowest);
    for (int b = from / 16; b < (to + 15) / 16; b++) {
        const Lanes lanes = lanes_of(from, to, b);
        const VecF s = select_range(load(scores + 16 * b), set1(kLowest), lanes.from, lanes.to);
        top = max(s, top);
    }
    const float m = reduce_max(top);
    VecF e[4];  // a chunk's 64 places are the 64 lanes of its sum
    for (int b = 0; b < 4; b++) {
        const Lanes lanes = lanes_of(from, to, b);
        e[b] = zero();
        if (lanes.from < lanes.to) {
            e[b] = counted(exp(sub(load(scores + 16 * b), set1(m))));
            if (lanes.from > 0 || lanes.to < 16)
                e[b] = select_range(e[b], zero(), lanes.from, lanes.to);
        }
        store(scores + 16 * b, e[b]);
    }
    *sum = reduce_lanes(e[0], e[1], e[2], e[3]);
    return m;
}

// What queries have come to so far: sums [.., padded v_dim] not yet divided by the sums of their
// weights, and by what largest score those are scaled.
struct Softmax {
    float* total;
    float* part;    // a chunk's sums
    float* scores;  // [.., 64]
    float *best, *sum;
    bool* started;
};

// Keys [4][k_dim][16] and values [64][padded v_dim] of a chunk, and what becomes of scores;
// `ahead`: bytes from the chunk's page to the one that is read next.
template <typename T>
struct KeyChunk {
    const T *keys, *values;
    int k_dim, v_dim;
    float scale, cap;
    ptrdiff_t ahead;
};

// Takes H queries from `at` on, all of them started or none, through places [from, to) of a chunk.
// q: [.., k_dim].
template <int H, typename T>
void read_chunk(const KeyChunk<T>& chunk, const Softmax& state, const float* q, int at, int from,
                int to) {
    constexpr int kBlocks = kSums / H >= 4 ? 4 : kSums / H >= 2 ? 2 : 1;  // of the 4 of a chunk
    constexpr int kVectors = kBlocks;
    const int dim = chunk.k_dim, wide = padded(chunk.v_dim);
    const T *keys = chunk.keys, *values = chunk.values;
    const ptrdiff_t ahead = chunk.ahead;
    const VecF scale = set1(chunk.scale);
    q += at * dim;
    float* total = state.total + at * wide;
    float* part = state.part + at * wide;
    float* scores = state.scores + at * kPage;
    float *best = state.best + at, *sum = state.sum + at;
    int b = from / 16;
    const int block_to = (to + 15) / 16;
    for (; b + kBlocks <= block_to; b += kBlocks)
        score_blocks<H, kBlocks>(q, dim, keys, ahead, b, scale, scores);
    for (; b < block_to; b++) score_blocks<H, 1>(q, dim, keys, ahead, b, scale, scores);
    if (chunk.cap > 0.0f) {
        const VecF cap = set1(chunk.cap);
        for (int h = 0; h < H; h++)
            for (int i = 16 * (from / 16); i < 16 * block_to; i += 16)
                store(scores + h * kPage + i, capped(load(scores + h * kPage + i), cap));
    }
    float m[H], l[H];
    for (int h = 0; h < H; h++) m[h] = weigh(scores + h * kPage, from, to, &l[h]);
    const bool started = state.started[at];
    float* o = started ? part : total;
    int d = 0;
    for (; d + 16 * kVectors <= wide; d += 16 * kVectors)
        value_vectors<H, kVectors>(scores, values + d, ahead, from, to, wide, o + d, wide);
    for (; d < wide; d += 16)
        value_vectors<H, 1>(scores, values + d, ahead, from, to, wide, o + d, wide);
    if (!started) {
        for (int h = 0; h < H; h++) {
            best[h] = m[h];
            sum[h] = l[h];
            state.started[at + h] = true;
        }
        return;
    }
    float joined[16] = {}, differences[16] = {}, factors[16];
    static_assert(2 * H <= 16);
    for (int h = 0; h < H; h++) {
        joined[h] = m[h] > best[h] ? m[h] : best[h];
        differences[2 * h] = best[h] - joined[h];
        differences[2 * h + 1] = m[h] - joined[h];
    }
    store(factors, counted(exp(load(differences))));
    for (int h = 0; h < H; h++) {
        const VecF x = set1(factors[2 * h]), y = set1(factors[2 * h + 1]);
        sum[h] = fma1(sum[h], factors[2 * h], l[h] * factors[2 * h + 1]);
        best[h] = joined[h];
        float *have = total + h * wide, *add_to = part + h * wide;
        for (int i = 0; i < wide; i += 16)
            store(have + i, stored(fma(load(have + i), x, mul(load(add_to + i), y))));
    }
}

// The same for `count` queries, as many at a time as there are registers for.
template <typename T>
void read_chunk(const KeyChunk<T>& chunk, const Softmax& state, const float* q, int at, int count,
                int from, int to) {
    auto take = [&](auto heads) {
        constexpr int H = decltype(heads)::value;
        for (; count >= H; count -= H, at += H) read_chunk<H, T>(chunk, state, q, at, from, to);
    };
    if constexpr (kMostHeads >= 8) {
        take(Count<8>{});
        take(Count<7>{});
        take(Count<6>{});
        take(Count<5>{});
    }
    take(Count<4>{});
    take(Count<3>{});
    take(Count<2>{});
    take(Count<1>{});
}

inline void store_elements(uint16_t* out, VecF v) { store_half(out, v); }
inline void store_elements(float* out, VecF v) { store(out, v); }
inline bool finite(uint16_t h) { return (h & 0x7c00) != 0x7c00; }
inline bool finite(float x) {
    int32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return (bits & 0x7f800000) != 0x7f800000;
}

}  // namespace
}  // namespace bw::BW_ISA_NAME
