// Latent attention: all heads read one key a position, whose first elements are its value too. One
// text for every ISA variant.
//
// A page holds [64 positions][padded k_dim]. What the heads' products want of it, keys side by side
// and both as floats, is made once and serves many queries.
#include <cstring>

#include "kernels/math.h"
#include "kernels/variant.h"

namespace bw::BW_ISA_NAME {
namespace {

inline VecF load_element(const uint16_t* p) { return load_half(p); }
inline VecF load_element(const float* p) { return load(p); }

inline int smaller(int a, int b) { return a < b ? a : b; }
inline int larger(int a, int b) { return a > b ? a : b; }

constexpr float kLowest = -__builtin_inff();

// Sums that are kept in registers: queries times blocks of 16 keys, or of 16 elements.
#if defined(BW_ISA_AVX512)
constexpr int kSums = 16;
constexpr int kMostQueries = 8;
#else
constexpr int kSums = 4;
constexpr int kMostQueries = 4;
#endif

// What is known of the queries of a call, and a page as they read it.
struct State {
    float* keys;    // [4][k_dim][16]
    float* values;  // [64][wide]
    float* total;   // [queries][wide], not yet divided by `sum`
    float* part;    // [kMostQueries][wide], of a chunk
    float* scores;  // [kMostQueries][64]
    float best[kLatentQueries], sum[kLatentQueries];
};

template <typename T>
void open_page(const LatentArgs& args, const T* page, int places, State& state) {
    const int k_dim = args.k_dim, stride = padded(k_dim), wide = padded(args.v_dim);
    for (int j = 0; j < places; j++) {
        const T* row = page + static_cast<size_t>(j) * stride;
        float* column = state.keys + static_cast<size_t>(j / 16) * k_dim * 16 + j % 16;
        float* value = state.values + static_cast<size_t>(j) * wide;
        for (int d = 0; d < k_dim; d += 16) {
            float some[16];
            const VecF v = load_element(row + d);
            store(some, v);
            if (d < wide) store(value + d, v);
            for (int i = 0; i < 16 && d + i < k_dim; i++)
                column[static_cast<size_t>(d + i) * 16] = some[i];
        }
    }
}

template <int Q, int B>
inline void score(const float* const* q, int dim, const float* keys, int b, VecF scale,
                  float* scores) {
    VecF sums[Q][B];
    for (int i = 0; i < Q; i++)
        for (int j = 0; j < B; j++) sums[i][j] = zero();
    for (int d = 0; d < dim; d++) {
        VecF k[B];
        for (int j = 0; j < B; j++) k[j] = load(keys + (static_cast<size_t>(b + j) * dim + d) * 16);
        for (int i = 0; i < Q; i++) {
            const VecF element = set1(q[i][d]);
            for (int j = 0; j < B; j++) sums[i][j] = fma(element, k[j], sums[i][j]);
        }
    }
    for (int i = 0; i < Q; i++)
        for (int j = 0; j < B; j++)
            store(scores + i * kPage + (b + j) * 16, mul(sums[i][j], scale));
}

template <int Q, int B>
inline void weighted(const float* e, const float* v, int to, int stride, float* out) {
    VecF acc[Q][B];
    for (int i = 0; i < Q; i++)
        for (int j = 0; j < B; j++) acc[i][j] = zero();
    for (int p = 0; p < to; p++) {
        VecF value[B];
        for (int j = 0; j < B; j++) value[j] = load(v + static_cast<size_t>(p) * stride + 16 * j);
        for (int i = 0; i < Q; i++) {
            const VecF weight = set1(e[i * kPage + p]);
            for (int j = 0; j < B; j++) acc[i][j] = fma(weight, value[j], acc[i][j]);
        }
    }
    for (int i = 0; i < Q; i++)
        for (int j = 0; j < B; j++) store(out + i * stride + 16 * j, acc[i][j]);
}

// Softmax weights of the first `to` places, in place of their scores; the largest score and the
// sum.
inline float weigh(float* scores, int to, float* sum) {
    VecF top = set1(kLowest);
    for (int b = 0; 16 * b < to; b++)
        top = max(select_range(load(scores + 16 * b), set1(kLowest), 0, smaller(to - 16 * b, 16)),
                  top);
    const float m = reduce_max(top);
    VecF e[4];
    for (int b = 0; b < 4; b++) {
        const int lanes = larger(0, smaller(to - 16 * b, 16));
        e[b] = zero();
        if (lanes > 0) {
            e[b] = counted(exp(sub(load(scores + 16 * b), set1(m))));
            if (lanes < 16) e[b] = select_range(e[b], zero(), 0, lanes);
        }
        store(scores + 16 * b, e[b]);
    }
    *sum = reduce_lanes(e[0], e[1], e[2], e[3]);
    return m;
}

// Takes Q queries from `at` on through the first `to` places of the open page.
template <int Q>
void read_page(const LatentArgs& args, State& state, const float* const* q, int at, bool started,
               int to) {
    constexpr int kBlocks = kSums / Q >= 4 ? 4 : kSums / Q >= 2 ? 2 : 1;
    const int wide = padded(args.v_dim);
    const VecF scale = set1(args.scale);
    int b = 0;
    const int blocks = (to + 15) / 16;
    for (; b + kBlocks <= blocks; b += kBlocks)
        score<Q, kBlocks>(q, args.k_dim, state.keys, b, scale, state.scores);
    for (; b < blocks; b++) score<Q, 1>(q, args.k_dim, state.keys, b, scale, state.scores);
    float m[Q], l[Q];
    for (int i = 0; i < Q; i++) m[i] = weigh(state.scores + i * kPage, to, &l[i]);
    float* total = state.total + static_cast<size_t>(at) * wide;
    float* out = started ? state.part : total;
    int d = 0;
    for (; d + 16 * kBlocks <= wide; d += 16 * kBlocks)
        weighted<Q, kBlocks>(state.scores, state.values + d, to, wide, out + d);
    for (; d < wide; d += 16) weighted<Q, 1>(state.scores, state.values + d, to, wide, out + d);
    float *best = state.best + at, *sum = state.sum + at;
    if (!started) {
        for (int i = 0; i < Q; i++) best[i] = m[i], sum[i] = l[i];
        return;
    }
    float joined[Q], differences[16] = {}, factors[16];
    static_assert(2 * Q <= 16);
    for (int i = 0; i < Q; i++) {
        joined[i] = m[i] > best[i] ? m[i] : best[i];
        differences[2 * i] = best[i] - joined[i];
        differences[2 * i + 1] = m[i] - joined[i];
    }
    store(factors, counted(exp(load(differences))));
    for (int i = 0; i < Q; i++) {
        const VecF x = set1(factors[2 * i]), y = set1(factors[2 * i + 1]);
        sum[i] = fma1(sum[i], factors[2 * i], l[i] * factors[2 * i + 1]);
        best[i] = joined[i];
        float *have = total + i * wide, *more = state.part + i * wide;
        for (int j = 0; j < wide; j += 16)
            store(have + j, stored(fma(load(have + j), x, mul(load(more + j), y))));
    }
}

template <typename T>
void attend(const LatentArgs& args) {
    const int wide = padded(args.v_dim), heads = args.heads;
    State state;
    state.keys = args.scratch;
    state.values = state.keys + static_cast<size_t>(kPage) * args.k_dim;
    state.part = state.values + static_cast<size_t>(kPage) * wide;
    state.scores = state.part + static_cast<size_t>(kMostQueries) * wide;
    state.total = state.scores + static_cast<size_t>(kMostQueries) * kPage;
    int longest = 0;
    for (int r = 0; r < args.rows; r++) longest = larger(longest, args.positions[r]);
    for (int c = 0; c <= longest / kPage; c++) {
        open_page(args, static_cast<const T*>(args.pages[c]),
                  smaller(longest - c * kPage + 1, kPage), state);
        for (int r = 0; r < args.rows; r++) {
            const int to = smaller(args.positions[r] - c * kPage + 1, kPage);
            if (to <= 0) continue;
            for (int h = 0; h < heads;) {
                const float* q[kMostQueries];
                const int count = smaller(heads - h, kMostQueries);
                for (int i = 0; i < count; i++)
                    q[i] = args.q + r * args.q_stride + static_cast<size_t>(h + i) * args.k_dim;
                const int at = r * heads + h;
                const bool started = c > 0;
                switch (count) {
#if defined(BW_ISA_AVX512)
                    case 8:
                        read_page<8>(args, state, q, at, started, to);
                        break;
                    case 7:
                    case 6:
                    case 5:
#endif
                    case 4:
                        read_page<4>(args, state, q, at, started, to);
                        break;
                    case 3:
                        read_page<3>(args, state, q, at, started, to);
                        break;
                    case 2:
                        read_page<2>(args, state, q, at, started, to);
                        break;
                    default:
                        read_page<1>(args, state, q, at, started, to);
                }
                h += count > 4 && count < 8 ? 4 : count;
            }
        }
    }
    for (int i = 0; i < args.rows * heads; i++) {
        const VecF denominator = set1(state.sum[i]);
        const float* have = state.total + static_cast<size_t>(i) * wide;
        float* to =
            args.out + i / heads * args.out_stride + static_cast<size_t>(i % heads) * args.v_dim;
        for (int d = 0; d < args.v_dim; d += 16)
            store_some(to + d, stored(div(load(have + d), denominator)), args.v_dim - d);
    }
}

inline void store_elements(uint16_t* out, VecF v) { store_half(out, v); }
inline void store_elements(float* out, VecF v) { store(out, v); }
inline bool finite(uint16_t h) { return (h & 0x7c00) != 0x7c00; }
inline bool finite(float x) {
    int32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return (bits & 0x7f800000) != 0x7f800000;
}

template <typename T>
bool keep(T* page, const float* k, int place, int dim) {
    T* row = page + static_cast<size_t>(place) * padded(dim);
    bool good = true;
    for (int d = 0; d < dim; d += 16) {
        store_elements(row + d, load_some(k + d, dim - d));
        for (int i = 0; i < 16; i++) good &= finite(row[d + i]);
    }
    return good;
}

}  // namespace

bool latent_store(void* page, const float* k, int place, int dim, bool half) {
    if (half) return keep(static_cast<uint16_t*>(page), k, place, dim);
    return keep(static_cast<float*>(page), k, place, dim);
}

void latent_attention(const LatentArgs& args) {
    if (args.half)
        attend<uint16_t>(args);
    else
        attend<float>(args);
}

}  // namespace bw::BW_ISA_NAME
