// Gated delta nets: the convolution before them, their norms and gates, and a row's change of a
// state. One text for every ISA variant.
#include "kernels/math.h"
#include "kernels/variant.h"

namespace bw::BW_ISA_NAME {

void l2_norm(const float* x, float* y, int n, float eps, float factor) {
    const VecF r = set1(1.0f / __builtin_sqrtf(sum_squares(x, n) + eps)), times = set1(factor);
    for (int i = 0; i < n; i += 16)
        store_some(y + i, stored(mul(mul(load_some(x + i, n - i), r), times)), n - i);
}

namespace {

// log(1 + exp(x)): what exceeds max(x, 0) is log(1 + u), twice the area hyperbolic tangent of
// u / (2 + u), by its series.
inline VecF softplus(VecF x) {
    const VecF u = counted(exp(neg(max(x, neg(x)))));
    const VecF s = div(u, add(set1(2.0f), u)), z = mul(s, s);
    VecF p = set1(2.0f / 17.0f);
    p = fma(p, z, set1(2.0f / 15.0f));
    p = fma(p, z, set1(2.0f / 13.0f));
    p = fma(p, z, set1(2.0f / 11.0f));
    p = fma(p, z, set1(2.0f / 9.0f));
    p = fma(p, z, set1(2.0f / 7.0f));
    p = fma(p, z, set1(2.0f / 5.0f));
    p = fma(p, z, set1(2.0f / 3.0f));
    p = fma(p, z, set1(2.0f));
    return add(max(zero(), x), mul(s, p));
}

}  // namespace

void decay(const float* x, const float* rate, const float* step, float* y, int n) {
    for (int i = 0; i < n; i += 16) {
        const VecF speed = stored(exp(load_some(rate + i, n - i)));
        const VecF time = softplus(add(load_some(x + i, n - i), load_some(step + i, n - i)));
        store_some(y + i, counted(exp(neg(mul(speed, time)))), n - i);
    }
}

void short_conv(const ConvArgs& args) {
    for (int c = args.from; c < args.from + args.count; c += 16) {
        const int n = args.from + args.count - c < 16 ? args.from + args.count - c : 16;
        float weights[kMostTaps * 16] = {};
        for (int j = 0; j < n; j++)
            for (int i = 0; i < args.taps; i++)
                weights[i * 16 + j] = args.weights[(c + j) * args.taps + i];
        for (int r = 0; r < args.rows; r++) {
            VecF sum = zero();
            for (int i = 0; i < args.taps; i++)
                sum = fma(load_some(args.x[r + i] + c, n), load(weights + i * 16), sum);
            store_some(args.y[r] + c, stored(div(sum, add(set1(1.0f), exp(neg(sum))))), n);
        }
    }
}

namespace {

// V vectors of a state's columns. Sums go up the rows from the first one.
template <int V>
void change(const DeltaArgs& args) {
    const VecF keep = set1(args.keep), write = set1(args.write);
    VecF sum[V];
    for (int j = 0; j < V; j++) sum[j] = zero();
    for (int i = 0; i < args.k_dim; i++) {
        const float* row = args.state + static_cast<size_t>(i) * args.stride;
        const VecF k = set1(args.k[i]);
        for (int j = 0; j < V; j++) sum[j] = fma(k, stored(mul(load(row + 16 * j), keep)), sum[j]);
    }
    VecF added[V];
    for (int j = 0; j < V; j++) {
        const VecF v = load_some(args.v + 16 * j, args.columns - 16 * j);
        added[j] = stored(mul(sub(v, sum[j]), write));
        sum[j] = zero();
    }
    for (int i = 0; i < args.k_dim; i++) {
        float* row = args.state + static_cast<size_t>(i) * args.stride;
        const VecF k = set1(args.k[i]), q = set1(args.q ? args.q[i] : 0.0f);
        for (int j = 0; j < V; j++) {
            const VecF left = stored(mul(load(row + 16 * j), keep));
            const VecF now = stored(fma(k, added[j], left));
            store(row + 16 * j, now);
            sum[j] = fma(q, now, sum[j]);
        }
    }
    if (!args.q) return;
    for (int j = 0; j < V; j++)
        store_some(args.out + 16 * j, stored(sum[j]), args.columns - 16 * j);
}

}  // namespace

void delta_rule(const DeltaArgs& args) {
    DeltaArgs some = args;
    for (int left = args.columns; left > 0;) {
        const int taken = left > 32 ? 64 : left > 16 ? 32 : 16;
        some.columns = left < taken ? left : taken;
        if (left > 48)
            change<4>(some);
        else if (left > 32)
            change<3>(some);
        else if (left > 16)
            change<2>(some);
        else
            change<1>(some);
        left -= taken;
        some.state += taken;
        some.v += taken;
        some.out += args.q ? taken : 0;
    }
}

}  // namespace bw::BW_ISA_NAME
