// Norm, gate, rope, residual and quantisation of activations. One text for every ISA variant.
#include "kernels/dot.h"
#include "kernels/math.h"
#include "kernels/variant.h"

namespace bw::BW_ISA_NAME {

void scale_by(const float* x, float factor, const float* weight, float* y, int n) {
    VecF scale = set1(factor);
    int i = 0;
    for (; i + 16 <= n; i += 16)
        store(y + i, stored(mul(mul(load(x + i), scale), load(weight + i))));
    if (i < n) {
        int rest = n - i;
        VecF v = mul(mul(load_first(x + i, rest), scale), load_first(weight + i, rest));
        store_first(y + i, stored(v), rest);
    }
}

void rms_norm(const float* x, const float* weight, float* y, int n, float eps) {
    float mean = sum_squares(x, n) / static_cast<float>(n);
    scale_by(x, 1.0f / __builtin_sqrtf(mean + eps), weight, y, n);
}

float squares(const float* x, int n) { return sum_squares(x, n); }

// y holds what is left without the mean until it is scaled.
void layer_norm(const float* x, const float* weight, float* y, int n, float eps) {
    const VecF mean = set1(sum_plain(x, n) / static_cast<float>(n));
    for (int i = 0; i < n; i += 16)
        store_some(y + i, stored(sub(load_some(x + i, n - i), mean)), n - i);
    const float variance = sum_squares(y, n) / static_cast<float>(n);
    scale_by(y, 1.0f / __builtin_sqrtf(variance + eps), weight, y, n);
}

void add_scaled(const float* x, const float* other, float factor, float* y, int n) {
    const VecF times = set1(factor);
    for (int i = 0; i < n; i += 16) {
        const VecF more = mul(load_some(other + i, n - i), times);
        store_some(y + i, stored(add(load_some(x + i, n - i), more)), n - i);
    }
}

void scale(const float* x, float factor, float* y, int n) {
    const VecF times = set1(factor);
    for (int i = 0; i < n; i += 16)
        store_some(y + i, stored(mul(load_some(x + i, n - i), times)), n - i);
}

void soft_cap(const float* x, float cap, float* y, int n) {
    const VecF most = set1(cap);
    for (int i = 0; i < n; i += 16)
        store_some(y + i, stored(capped(load_some(x + i, n - i), most)), n - i);
}

namespace {

// The gate times the logistic function of `inner`, times up.
inline VecF gate_times(VecF gate, VecF inner, VecF up) {
    VecF s = div(gate, add(set1(1.0f), exp(neg(inner))));
    return stored(mul(s, up));
}

template <GateFunction G>
inline VecF gated(VecF gate, VecF up, VecF limit, VecF alpha) {
    if constexpr (G == GateFunction::gelu_tanh) {
        const VecF slope = fma(mul(gate, gate), set1(0x1.2444f2p-4f), set1(0x1.988454p+0f));
        return gate_times(gate, mul(gate, slope), up);
    }
    if constexpr (G == GateFunction::clamped_silu) {
        gate = clamp(gate, set1(-__builtin_inff()), limit);
        up = add(clamp(up, neg(limit), limit), set1(1.0f));
        return gate_times(gate, mul(alpha, gate), up);
    }
    if constexpr (G == GateFunction::sigmoid)
        return stored(mul(stored(div(set1(1.0f), add(set1(1.0f), exp(neg(gate))))), up));
    return gate_times(gate, gate, up);
}

template <GateFunction G>
void gate_all(const float* gate, const float* up, float* y, int n, float limit, float alpha) {
    const VecF most = set1(limit), factor = set1(alpha);
    int i = 0;
    for (; i + 16 <= n; i += 16) store(y + i, gated<G>(load(gate + i), load(up + i), most, factor));
    if (i < n) {
        int rest = n - i;
        VecF g = load_first(gate + i, rest), u = load_first(up + i, rest);
        store_first(y + i, gated<G>(g, u, most, factor), rest);
    }
}

}  // namespace

void gated_mul(GateFunction function, const float* gate, const float* up, float* y, int n,
               float limit, float alpha) {
    switch (function) {
        case GateFunction::silu:
            return gate_all<GateFunction::silu>(gate, up, y, n, limit, alpha);
        case GateFunction::gelu_tanh:
            return gate_all<GateFunction::gelu_tanh>(gate, up, y, n, limit, alpha);
        case GateFunction::clamped_silu:
            return gate_all<GateFunction::clamped_silu>(gate, up, y, n, limit, alpha);
        case GateFunction::sigmoid:
            return gate_all<GateFunction::sigmoid>(gate, up, y, n, limit, alpha);
    }
}

namespace {

struct Pair {
    VecF first, second;
};

inline Pair turn(VecF x1, VecF x2, VecF c, VecF s) {
    return {stored(fma(x1, c, neg(mul(x2, s)))), stored(fma(x2, c, mul(x1, s)))};
}

}  // namespace

void rope(float* head, const float* cosine, const float* sine, int rotary, bool interleaved) {
    int half = rotary / 2;
    for (int i = 0; i < half; i += 16) {
        int n = half - i < 16 ? half - i : 16;
        VecF c = load_some(cosine + i, n), s = load_some(sine + i, n);
        if (!interleaved) {
            Pair y = turn(load_some(head + i, n), load_some(head + half + i, n), c, s);
            store_some(head + i, y.first, n);
            store_some(head + half + i, y.second, n);
            continue;
        }
        float even[16] = {}, odd[16] = {};
        for (int j = 0; j < n; j++) even[j] = head[2 * (i + j)], odd[j] = head[2 * (i + j) + 1];
        Pair y = turn(load(even), load(odd), c, s);
        store(even, y.first);
        store(odd, y.second);
        for (int j = 0; j < n; j++) head[2 * (i + j)] = even[j], head[2 * (i + j) + 1] = odd[j];
    }
}

bool residual_add(const int64_t* grid, const float* bias, float* x, int n) {
    bool bad = false;
    for (int i = 0; i < n; i += 16) {
        int rest = n - i;
        VecF sum;
        if (rest >= 16) {
            sum = grid_to_float(grid + i, &bad);
        } else {
            int64_t whole[16] = {};
            for (int j = 0; j < rest; j++) whole[j] = grid[i + j];
            sum = grid_to_float(whole, &bad);
        }
        if (bias) sum = add(sum, load_some(bias + i, rest));
        store_some(x + i, stored(add(load_some(x + i, rest), sum)), rest);
    }
    return !bad;
}

void exp_array(const float* x, float* y, size_t n) {
    size_t i = 0;
    for (; i + 16 <= n; i += 16) store(y + i, exp(load(x + i)));
    if (i < n) {
        int rest = static_cast<int>(n - i);
        store_first(y + i, exp(load_first(x + i, rest)), rest);
    }
}

int argmax(const float* x, int n) {
    VecF top = set1(x[0]);
    VecI size = izero();
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        VecF v = load(x + i);
        top = max(v, top);
        size = imax(size, abs_bits(v));
    }
    float best = reduce_max(top);
    int32_t worst = reduce_imax(size);
    for (; i < n; i++) {
        int32_t bits;
        __builtin_memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff;
        worst = bits > worst ? bits : worst;
        best = x[i] > best ? x[i] : best;
    }
    if (worst >= 0x7f800000) return -1;
    for (int at = 0; at < n; at++)
        if (x[at] == best) return at;
    return -1;
}

namespace {

// Corrections as corrects_pairs says, of a group's integers or of each half of them.
inline void pair_corrections(Format format, VecI a, VecI b, int32_t* sums) {
    int32_t integers[kGroup];
    store_int(integers, a);
    store_int(integers + 16, b);
    const int count = static_cast<int>(activation_sums(format)), zero = zero_point(format);
    int low[2] = {}, high[2] = {};
    for (int half = 0; half < 2; half++)
        for (int at = 16 * half; at < 16 * half + 16; at += 4) {
            low[half] += integers[at] + integers[at + 1];
            high[half] += integers[at + 2] + integers[at + 3];
        }
    if (count == 1) low[0] += low[1], high[0] += high[1];
    for (int i = 0; i < count; i++) {
        const int16_t pair[2] = {static_cast<int16_t>(-zero * low[i]),
                                 static_cast<int16_t>(-zero * high[i])};
        __builtin_memcpy(sums + i, pair, sizeof pair);
    }
}

// What products with GGUF's blocks need of a group's integers beside their scale: see
// activation_sums.
inline void block_sums(const BlockShape& shape, VecI a, VecI b, float scale, int32_t* sums) {
    int32_t totals[2] = {reduce_iadd(a), reduce_iadd(b)};
    if (shape.sub == kGroup) totals[0] += totals[1];
    for (int i = 0; i < shape.group_subs(); i++) {
        const float weight = static_cast<float>(totals[i]) * scale;
        sums[i] = -shape.zero_point * totals[i];
        if (shape.minima) __builtin_memcpy(sums + i, &weight, sizeof weight);
    }
}

// One group of `n` <= 32 elements: integers, scale and correction sums.
inline bool quantize_group(Format format, const float* x, int n, uint8_t* integers, float* scale,
                           int32_t* sum) {
    int low = n < 16 ? n : 16;
    VecF a = low == 16 ? load(x) : load_first(x, low);
    VecF b = n == 32 ? load(x + 16) : (n > 16 ? load_first(x + 16, n - 16) : zero());
    int32_t bits = reduce_imax(imax(abs_bits(a), abs_bits(b)));
    float amax;
    __builtin_memcpy(&amax, &bits, sizeof amax);
    if (bits >= 0x7f800000 || amax < kSmallestStored) {
        __builtin_memset(integers, 0, activation_integers(format));
        *scale = 0.0f;
        __builtin_memset(sum, 0, 4 * activation_sums(format));
        return bits < 0x7f800000;
    }
    const float top = format == Format::q8 ? 32512.0f : 127.0f;
    VecF inverse = set1(top / amax);
    *scale = amax / top;
    VecI qa = to_int(mul(a, inverse)), qb = to_int(mul(b, inverse));
    if (format != Format::q8) {
        auto* out = reinterpret_cast<int8_t*>(integers);
        store_int8(out, qa);
        store_int8(out + 16, qb);
    }
    if (corrects_pairs(format)) {
        pair_corrections(format, qa, qb, sum);
        return true;
    }
    if (keeps_blocks(format)) {
        block_sums(block_shape(format), qa, qb, *scale, sum);
        return true;
    }
    int32_t total = reduce_iadd(iadd(qa, qb));
    if (format != Format::q8) {
        *sum = -zero_point(format) * total;
        return true;
    }
    if (kWideIntegers == WideIntegers::planes) {
        auto* high = reinterpret_cast<int8_t*>(integers);
        int8_t* rest = high + 32;
        VecI ha = shift_right_8(iadd(qa, iset1(128))), hb = shift_right_8(iadd(qb, iset1(128)));
        store_int8(high, ha);
        store_int8(high + 16, hb);
        store_int8(rest, isub(qa, shift_left_8(ha)));
        store_int8(rest + 16, isub(qb, shift_left_8(hb)));
        *sum = -128 * total;
        return true;
    }
    auto* out = reinterpret_cast<int16_t*>(integers);
    if (kWideIntegers == WideIntegers::in_order) {
        store_int16(out, qa);
        store_int16(out + 16, qb);
        *sum = 0;
        return true;
    }
    int32_t in_order[kGroup];
    store_int(in_order, qa);
    store_int(in_order + 16, qb);
    for (int i = 0; i < kGroup; i += 4) {
        out[i] = static_cast<int16_t>(in_order[i]);
        out[i + 1] = static_cast<int16_t>(in_order[i + 2]);
        out[i + 2] = static_cast<int16_t>(in_order[i + 1]);
        out[i + 3] = static_cast<int16_t>(in_order[i + 3]);
    }
    *sum = -128 * total;
    return true;
}

}  // namespace

bool quantize(Format format, const float* x, const Layout& layout, uint8_t* activations) {
    int groups = layout.groups();
    uint8_t* integers = activations;
    const size_t each = activation_integers(format), own_sums = activation_sums(format);
    auto* scales = reinterpret_cast<float*>(activations + static_cast<size_t>(groups) * each);
    auto* sums = reinterpret_cast<int32_t*>(scales + groups);
    bool finite = true;
    int group = 0, units = layout.units();
    for (int u = 0; u < units; u++) {
        const float* at = x + static_cast<size_t>(u) * layout.unit;
        int left = layout.unit_size(u);
        for (; left > 0; left -= kGroup, at += kGroup, group++) {
            int n = left < kGroup ? left : kGroup;
            finite &= quantize_group(format, at, n, integers + static_cast<size_t>(group) * each,
                                     scales + group, sums + static_cast<size_t>(group) * own_sums);
        }
    }
    return finite;
}

}  // namespace bw::BW_ISA_NAME
