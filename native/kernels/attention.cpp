// KV storage, and attention of queries that share a KV head: heads of a row, and rows of a
// sequence. One text for every ISA variant.
#include <cstring>

#include "kernels/attention_chunk.h"

namespace bw::BW_ISA_NAME {
namespace {

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
    float best[kQueriesTogether], sum[kQueriesTogether];
    bool started[kQueriesTogether] = {};
    Softmax state{};
    state.best = best;
    state.sum = sum;
    state.started = started;
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
    auto chunk = [&](int c, int last) {
        const auto* keys = static_cast<const T*>(args.pages[c]);
        const ptrdiff_t ahead = c < last ? static_cast<const char*>(args.pages[c + 1]) -
                                               static_cast<const char*>(args.pages[c])
                                         : 0;
        return KeyChunk<T>{
            keys, keys + static_cast<size_t>(kPage) * dim, dim, dim, args.scale, args.cap, ahead};
    };
    auto alone = [&](int r, int from_chunk, int to_chunk) {
        const int first = first_of(r), last = args.positions[r];
        for (int c = larger(from_chunk, first / kPage); c < to_chunk && c <= last / kPage; c++)
            read_chunk<T>(chunk(c, last / kPage), state, q, r * heads, heads,
                          larger(first - c * kPage, 0), smaller(last - c * kPage + 1, kPage));
    };
    for (int r = 0; r < args.rows; r++) alone(r, 0, begin);
    for (int c = begin; c < end; c++)
        read_chunk<T>(chunk(c, longest), state, q, 0, queries, 0, kPage);
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
