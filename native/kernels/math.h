// The engine's own functions over VecF, as docs/numerics.md section 5 states them.
#pragma once
#include "kernels/kernels.h"
#include "simd/vec16.h"

namespace bw::BW_ISA_NAME {

inline VecF exp(VecF x) {
    x = clamp(x, set1(-104.0f), set1(89.0f));
    VecF n = rint(mul(x, set1(0x1.715476p+0f)));
    VecF r = fma(n, set1(-0x1.62e4p-1f), x);
    r = fma(n, set1(-0x1.7f7d1cp-20f), r);
    VecF p = set1(1.0f / 5040.0f);
    p = fma(p, r, set1(1.0f / 720.0f));
    p = fma(p, r, set1(1.0f / 120.0f));
    p = fma(p, r, set1(1.0f / 24.0f));
    p = fma(p, r, set1(1.0f / 6.0f));
    p = fma(p, r, set1(0.5f));
    p = fma(p, r, set1(1.0f));
    p = fma(p, r, set1(1.0f));
    VecI whole = to_int(n);
    VecI half = half_floor(whole);
    return mul(mul(p, power_of_two(half)), power_of_two(isub(whole, half)));
}

// Sum of squares over 16 virtual lanes and the fixed tree.
inline float sum_squares(const float* x, int n) {
    VecF s = zero();
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        VecF v = load(x + i);
        s = fma(v, v, s);
    }
    if (i < n) {
        VecF v = load_first(x + i, n - i);
        s = fma(v, v, s);
    }
    return reduce_add(s);
}

}  // namespace bw::BW_ISA_NAME
