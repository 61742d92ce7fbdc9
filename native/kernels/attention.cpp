// KV storage and attention of one query head. One text for every ISA variant.
#include "kernels/math.h"
#include "kernels/variant.h"

namespace bw::BW_ISA_NAME {
namespace {

inline VecF load_element(const uint16_t* p) { return load_half(p); }
inline VecF load_element(const float* p) { return load(p); }

constexpr float kLowest = -__builtin_inff();

// out[d] = fma(e[j], v[j][d], out[d]) over the visible j, for N vectors of d at a time.
template <int N, typename T>
inline void values_block(const float* e, const T* v, int from, int to, int stride, float* out) {
    VecF acc[N];
    for (int i = 0; i < N; i++) acc[i] = zero();
    for (int j = from; j < to; j++) {
        VecF weight = set1(e[j]);
        const T* row = v + static_cast<size_t>(j) * stride;
        for (int i = 0; i < N; i++) acc[i] = fma(weight, load_element(row + 16 * i), acc[i]);
    }
    for (int i = 0; i < N; i++) store(out + 16 * i, acc[i]);
}

template <typename T>
void attend(const AttentionArgs& args) {
    const int dim = args.dim, wide = padded(dim);
    float* total = args.scratch;         // O, unnormalised
    float* part = args.scratch + wide;   // a chunk's o
    float* e = args.scratch + 2 * wide;  // 64 weights
    const int last = args.position;
    const int first = args.window > 0 && last - args.window + 1 > 0 ? last - args.window + 1 : 0;
    const VecF scale = set1(args.scale);
    float best = 0.0f, sum = 0.0f;
    bool started = false;
    for (int chunk = first / kPage; chunk <= last / kPage; chunk++) {
        const int base = chunk * kPage;
        const int from = first > base ? first - base : 0;
        const int to = last - base + 1 < kPage ? last - base + 1 : kPage;
        const T* keys = static_cast<const T*>(args.pages[chunk]);
        const T* values = keys + static_cast<size_t>(kPage) * dim;
        const int block_from = from / 16, block_to = (to + 15) / 16;
        VecF scores[4];
        for (int b = 0; b < 4; b++) scores[b] = zero();
        if (block_from == 0 && block_to == 4) {
            for (int d = 0; d < dim; d++) {
                VecF q = set1(args.q[d]);
                for (int b = 0; b < 4; b++)
                    scores[b] = fma(q, load_element(keys + (b * dim + d) * 16), scores[b]);
            }
        } else {
            for (int b = block_from; b < block_to; b++)
                for (int d = 0; d < dim; d++)
                    scores[b] =
                        fma(set1(args.q[d]), load_element(keys + (b * dim + d) * 16), scores[b]);
        }
        VecF top = set1(kLowest);
        for (int b = block_from; b < block_to; b++) {
            int lane_from = from > 16 * b ? from - 16 * b : 0;
            int lane_to = to - 16 * b < 16 ? to - 16 * b : 16;
            scores[b] = select_range(mul(scores[b], scale), set1(kLowest), lane_from, lane_to);
            top = max(scores[b], top);
        }
        const float m = reduce_max(top);
        VecF lanes = zero();
        for (int b = 0; b < 4; b++) {
            VecF weight = zero();
            if (b >= block_from && b < block_to) {
                int lane_from = from > 16 * b ? from - 16 * b : 0;
                int lane_to = to - 16 * b < 16 ? to - 16 * b : 16;
                weight = select_range(exp(sub(scores[b], set1(m))), zero(), lane_from, lane_to);
            }
            store(e + 16 * b, weight);
            lanes = add(lanes, weight);
        }
        const float l = reduce_add(lanes);
        float* out = started ? part : total;
        int d = 0;
        for (; d + 64 <= wide; d += 64) values_block<4>(e, values + d, from, to, wide, out + d);
        if (wide - d == 48) values_block<3>(e, values + d, from, to, wide, out + d);
        if (wide - d == 32) values_block<2>(e, values + d, from, to, wide, out + d);
        if (wide - d == 16) values_block<1>(e, values + d, from, to, wide, out + d);
        if (!started) {
            best = m;
            sum = l;
            started = true;
            continue;
        }
        const float joined = m > best ? m : best;
        float factors[16];
        float differences[16] = {best - joined, m - joined};
        store(factors, exp(load(differences)));
        const VecF a = set1(factors[0]), b = set1(factors[1]);
        sum = fma1(sum, factors[0], l * factors[1]);
        best = joined;
        for (int i = 0; i < wide; i += 16)
            store(total + i, fma(load(total + i), a, mul(load(part + i), b)));
    }
    const VecF denominator = set1(sum);
    int d = 0;
    for (; d + 16 <= dim; d += 16) store(args.out + d, div(load(total + d), denominator));
    if (d < dim) store_first(args.out + d, div(load(total + d), denominator), dim - d);
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
        attend<uint16_t>(args);
    else
        attend<float>(args);
}

}  // namespace bw::BW_ISA_NAME
