// Norm, gate, rope and residual. One text for every ISA variant.
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

}  // namespace bw::BW_ISA_NAME
