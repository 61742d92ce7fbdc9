// The engine's own functions over VecF, as docs/numerics.md section 5 states them.
#pragma once
#include "core/numerics.h"
#include "kernels/kernels.h"
#include "simd/vec16.h"

namespace bw::BW_ISA_NAME {

// What becomes of a number when it is stored, and of a softmax weight: +0 where it is too small.
inline VecF stored(VecF x) { return at_least(x, set1(kSmallestStored)); }
inline VecF counted(VecF e) { return at_least(e, set1(kSmallestWeight)); }

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

// The tree over 64 virtual lanes: 64 -> 32 -> 16, and on in reduce_add.
inline float reduce_lanes(const VecF* s) {
    return reduce_add(add(add(s[0], s[2]), add(s[1], s[3])));
}

// Sum of squares over 64 virtual lanes and the fixed tree.
inline float sum_squares(const float* x, int n) {
    VecF s[4] = {zero(), zero(), zero(), zero()};
    int i = 0;
    for (; i + 64 <= n; i += 64)
        for (int j = 0; j < 4; j++) {
            const VecF v = load(x + i + 16 * j);
            s[j] = fma(v, v, s[j]);
        }
    // Missing elements are +0, which changes no lane.
    for (int j = 0; i < n; j++, i += 16) {
        const VecF v = n - i < 16 ? load_first(x + i, n - i) : load(x + i);
        s[j] = fma(v, v, s[j]);
    }
    return reduce_lanes(s);
}

}  // namespace bw::BW_ISA_NAME
