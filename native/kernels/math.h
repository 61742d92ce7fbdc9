// The engine's own functions over VecF, as docs/numerics.md section 5 states them.
#pragma once
#include "core/numerics.h"
#include "kernels/kernels.h"
#include "simd/vec16.h"

namespace bw::BW_ISA_NAME {

// What becomes of a number when it is stored, and of a softmax weight: +0 where it is too small.
inline VecF stored(VecF x) { return at_least(x, set1(kSmallestStored)); }
inline VecF counted(VecF e) { return at_least(e, set1(kSmallestWeight)); }

// Up to 16 elements, of which there may be more; fewer by way of memory.
inline VecF load_some(const float* x, int n) { return n < 16 ? load_first(x, n) : load(x); }
inline void store_some(float* x, VecF v, int n) {
    if (n < 16)
        store_first(x, v, n);
    else
        store(x, v);
}

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

// cap * tanh(x / cap), bounded by cap.
inline VecF capped(VecF x, VecF cap) {
    const VecF z = div(x, cap);
    const VecF e = exp(add(z, z));
    return mul(cap, sub(set1(1.0f), div(set1(2.0f), add(set1(1.0f), e))));
}

// The tree over 64 virtual lanes: 64 -> 32 -> 16, and on in reduce_add.
inline float reduce_lanes(VecF a, VecF b, VecF c, VecF d) {
    return reduce_add(add(add(a, c), add(b, d)));
}

// A lane's next element squared, of n that are left; missing ones are +0 and change nothing.
inline VecF add_square(const float* x, int n, VecF sum) {
    if (n <= 0) return sum;
    const VecF v = load_some(x, n);
    return fma(v, v, sum);
}

// A lane's next element itself.
inline VecF add_plain(const float* x, int n, VecF sum) {
    return n <= 0 ? sum : add(sum, load_some(x, n));
}

// Sum over 64 virtual lanes and the fixed tree.
inline float sum_plain(const float* x, int n) {
    VecF a = zero(), b = zero(), c = zero(), d = zero();
    for (; n > 0; n -= 64, x += 64) {
        a = add_plain(x, n, a);
        b = add_plain(x + 16, n - 16, b);
        c = add_plain(x + 32, n - 32, c);
        d = add_plain(x + 48, n - 48, d);
    }
    return reduce_lanes(a, b, c, d);
}

// Sum of squares over 64 virtual lanes and the fixed tree. Named, for compilers put arrays into
// memory.
inline float sum_squares(const float* x, int n) {
    VecF a = zero(), b = zero(), c = zero(), d = zero();
    for (; n >= 64; n -= 64, x += 64) {
        a = add_square(x, 16, a);
        b = add_square(x + 16, 16, b);
        c = add_square(x + 32, 16, c);
        d = add_square(x + 48, 16, d);
    }
    if (n > 0) {
        a = add_square(x, n, a);
        b = add_square(x + 16, n - 16, b);
        c = add_square(x + 32, n - 32, c);
        d = add_square(x + 48, n - 48, d);
    }
    return reduce_lanes(a, b, c, d);
}

}  // namespace bw::BW_ISA_NAME
