// KV storage, and attention of queries that share a KV head: heads of a row, and rows of a
// sequence. One text for every ISA variant.
#include <cstring>
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

// What queries have come to so far: sums [.., wide] not yet divided by the sums of their weights,
// and by what largest score those are scaled.
struct Softmax {
    float* total;
    float* part;    // a chunk's sums
    float* scores;  // [.., 64]
    float best[kQueriesTogether], sum[kQueriesTogether];
    bool started[kQueriesTogether];
};

// Takes H queries from `at` on, all of them started or none, through places [from, to) of a chunk.
// q: [.., dim]; `ahead`: bytes from the chunk's page to the one that is read next.
template <int H, typename T>
void read_chunk(const AttentionArgs& args, Softmax& state, const float* q, int at, const T* keys,
                ptrdiff_t ahead, int from, int to) {
    constexpr int kBlocks = kSums / H >= 4 ? 4 : kSums / H >= 2 ? 2 : 1;  // of the 4 of a chunk
    constexpr int kVectors = kBlocks;
    const int dim = args.dim, wide = padded(dim);
    const T* values = keys + static_cast<size_t>(kPage) * dim;
    const VecF scale = set1(args.scale);
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
    if (args.cap > 0.0f) {
        const VecF cap = set1(args.cap);
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
void read_chunk(const AttentionArgs& args, Softmax& state, const float* q, int at, int count,
                const T* keys, ptrdiff_t ahead, int from, int to) {
    auto take = [&](auto heads) {
        constexpr int H = decltype(heads)::value;
        for (; count >= H; count -= H, at += H)
            read_chunk<H, T>(args, state, q, at, keys, ahead, from, to);
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

// The last to join: a score without a key, whose weight goes to no value.
inline void join_sink(float sink, float& best, float& sum, float* total, int wide) {
    const float joined = sink > best ? sink : best;
    float differences[16] = {best - joined, sink - joined}, factors[16];
    store(factors, counted(exp(load(differences))));
    const VecF kept = set1(factors[0]);
    sum = fma1(sum, factors[0], factors[1]);
    best = joined;
    for (int i = 0; i < wide; i += 16) store(total + i, stored(mul(load(total + i), kept)));
}

// Rows with `heads` queries each, kQueriesTogether in all at most; q: [rows * heads, dim].
// `sinks`: of the heads, or null.
template <typename T>
void attend(const AttentionArgs& args, const float* q, int heads, const float* sinks, float* out) {
    const int dim = args.dim, wide = padded(dim), queries = args.rows * heads;
    Softmax state{};
    state.total = args.scratch;
    state.part = state.total + static_cast<size_t>(kQueriesTogether) * wide;
    state.scores = state.part + static_cast<size_t>(kQueriesTogether) * wide;
    auto first_of = [&](int r) {
        const int first = args.positions[r] - args.window + 1;
        return args.window > 0 && first > 0 ? first : 0;
    };
    // Chunks [begin, end) are seen whole by all rows, which go through them together.
    int begin = 0, end = args.positions[0] / kPage + 1, longest = 0;
    for (int r = 0; r < args.rows; r++) {
        begin = larger(begin, (first_of(r) + kPage - 1) / kPage);
        end = smaller(end, (args.positions[r] + 1) / kPage);
        longest = larger(longest, args.positions[r] / kPage);
    }
    // None of them or all have started by then.
    bool some = false, all = true;
    for (int r = 0; r < args.rows; r++) {
        const bool earlier = first_of(r) / kPage < begin;
        some |= earlier;
        all &= earlier;
    }
    if (some && !all) begin++;
    end = larger(begin, end);
    auto page = [&](int chunk) { return static_cast<const T*>(args.pages[chunk]); };
    auto ahead = [&](int chunk, int last) {
        return chunk < last ? static_cast<const char*>(args.pages[chunk + 1]) -
                                  static_cast<const char*>(args.pages[chunk])
                            : 0;
    };
    auto alone = [&](int r, int from_chunk, int to_chunk) {
        const int first = first_of(r), last = args.positions[r];
        for (int c = larger(from_chunk, first / kPage); c < to_chunk && c <= last / kPage; c++)
            read_chunk<T>(args, state, q, r * heads, heads, page(c), ahead(c, last / kPage),
                          larger(first - c * kPage, 0), smaller(last - c * kPage + 1, kPage));
    };
    for (int r = 0; r < args.rows; r++) alone(r, 0, begin);
    for (int c = begin; c < end; c++)
        read_chunk<T>(args, state, q, 0, queries, page(c), ahead(c, longest), 0, kPage);
    for (int r = 0; r < args.rows; r++) alone(r, end, longest + 1);
    for (int i = 0; sinks && i < queries; i++)
        join_sink(sinks[i % heads], state.best[i], state.sum[i], state.total + i * wide, wide);
    for (int i = 0; i < queries; i++) {
        const VecF denominator = set1(state.sum[i]);
        const float* have = state.total + i * wide;
        float* to = out + i / heads * args.out_stride + i % heads * dim;
        int d = 0;
        for (; d + 16 <= dim; d += 16) store(to + d, stored(div(load(have + d), denominator)));
        if (d < dim) store_first(to + d, stored(div(load(have + d), denominator)), dim - d);
    }
}

template <typename T>
void attend_all(const AttentionArgs& args) {
    if (args.rows == 1) {
        for (int h = 0; h < args.heads; h += kQueriesTogether)
            attend<T>(args, args.q + h * args.dim, smaller(args.heads - h, kQueriesTogether),
                      args.sinks ? args.sinks + h : nullptr, args.out + h * args.dim);
        return;
    }
    // Side by side, where kernels find them.
    const size_t own = static_cast<size_t>(args.heads) * args.dim;
    float* q = args.scratch + attention_scratch(args.dim) -
               static_cast<size_t>(kQueriesTogether) * padded(args.dim);
    for (int r = 0; r < args.rows; r++)
        std::memcpy(q + own * r, args.q + args.q_stride * r, own * sizeof(float));
    attend<T>(args, q, args.heads, args.sinks, args.out);
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
bool keep(T* keys, const float* k, const float* v, int place, int dim) {
    T* values = keys + static_cast<size_t>(kPage) * dim + static_cast<size_t>(place) * padded(dim);
    T* column = keys + static_cast<size_t>(place / 16) * dim * 16 + place % 16;
    bool good = true;
    for (int d = 0; d < dim; d += 16) {
        int n = dim - d < 16 ? dim - d : 16;
        T narrow[16];
        store_elements(narrow, load_first(k + d, n));
        for (int i = 0; i < n; i++) {
            good &= finite(narrow[i]);
            column[static_cast<size_t>(d + i) * 16] = narrow[i];
        }
        store_elements(narrow, load_first(v + d, n));
        for (int i = 0; i < 16; i++) {
            good &= finite(narrow[i]);
            values[d + i] = narrow[i];
        }
    }
    return good;
}

}  // namespace

bool kv_store(void* head_page, const float* k, const float* v, int place, int dim, bool half) {
    if (half) return keep(static_cast<uint16_t*>(head_page), k, v, place, dim);
    return keep(static_cast<float*>(head_page), k, v, place, dim);
}

void attention(const AttentionArgs& args) {
    if (args.half)
        attend_all<uint16_t>(args);
    else
        attend_all<float>(args);
}

}  // namespace bw::BW_ISA_NAME
