// VecF, VecI and Grid16 in plain C++17: the same bits on any processor with IEEE 754 arithmetic.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace bw::portable {

struct VecF {
    float v[16];
};
struct VecI {
    int32_t v[16];
};

#define BW_LANES(expression)                     \
    do {                                         \
        for (int i = 0; i < 16; i++) expression; \
    } while (false)

inline VecF set1(float x) {
    VecF r;
    BW_LANES(r.v[i] = x);
    return r;
}
inline VecF zero() { return set1(0.0f); }
inline VecF load(const float* p) {
    VecF r;
    std::memcpy(r.v, p, sizeof r.v);
    return r;
}
inline void store(float* p, VecF a) { std::memcpy(p, a.v, sizeof a.v); }
inline VecF load_first(const float* p, int n) {
    VecF r = zero();
    std::memcpy(r.v, p, sizeof(float) * static_cast<size_t>(n));
    return r;
}
inline void store_first(float* p, VecF a, int n) {
    std::memcpy(p, a.v, sizeof(float) * static_cast<size_t>(n));
}
inline VecF add(VecF a, VecF b) {
    BW_LANES(a.v[i] += b.v[i]);
    return a;
}
inline VecF sub(VecF a, VecF b) {
    BW_LANES(a.v[i] -= b.v[i]);
    return a;
}
inline VecF mul(VecF a, VecF b) {
    BW_LANES(a.v[i] *= b.v[i]);
    return a;
}
inline VecF div(VecF a, VecF b) {
    BW_LANES(a.v[i] /= b.v[i]);
    return a;
}
inline VecF sqrt(VecF a) {
    BW_LANES(a.v[i] = std::sqrt(a.v[i]));
    return a;
}
// A binary32 fma from binary64 arithmetic: the product is exact there, and rounding the sum to odd
// makes the second rounding harmless. Baseline x86-64 has no fma instruction, and a call of libm's
// would be ten times slower.
inline float fma1(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
    return std::fma(a, b, c);
#else
    double product = static_cast<double>(a) * static_cast<double>(b);
    double wide = static_cast<double>(c);
    double sum = product + wide;
    double back = sum - product;
    double error = (product - (sum - back)) + (wide - back);
    uint64_t bits;
    std::memcpy(&bits, &sum, sizeof bits);
    // Finite and inexact with an even last bit: step to the odd neighbour on the error's side.
    if (error != 0.0 && (bits & 1) == 0 && error - error == 0.0) {
        bits += ((error > 0.0) == (sum > 0.0)) ? 1 : static_cast<uint64_t>(-1);
        std::memcpy(&sum, &bits, sizeof sum);
    }
    return static_cast<float>(sum);
#endif
}
inline VecF fma(VecF a, VecF b, VecF c) {
    BW_LANES(c.v[i] = fma1(a.v[i], b.v[i], c.v[i]));
    return c;
}
inline VecF neg(VecF a) {
    BW_LANES(a.v[i] = -a.v[i]);
    return a;
}
// Half to even without libm: adding and taking away 1.5 * 2^23 is exact below 2^22; larger
// magnitudes up to 2^23 go through binary64, above they are whole already.
inline float rint1(float x) {
    float size = std::fabs(x);
    if (!(size < 0x1p23f)) return x;
    double magic = 0x1.8p52;
    double shifted = static_cast<double>(x) + magic;
    return std::copysign(static_cast<float>(shifted - magic), x);
}
inline VecF rint(VecF a) {
    BW_LANES(a.v[i] = rint1(a.v[i]));
    return a;
}
inline VecF max(VecF a, VecF b) {
    BW_LANES(a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]);
    return a;
}
inline VecF clamp(VecF x, VecF low, VecF high) {
    BW_LANES(x.v[i] = x.v[i] < low.v[i] ? low.v[i] : (x.v[i] > high.v[i] ? high.v[i] : x.v[i]));
    return x;
}
inline VecF at_least(VecF x, VecF bound) {
    BW_LANES(x.v[i] = std::fabs(x.v[i]) < bound.v[i] ? 0.0f : x.v[i]);
    return x;
}
inline VecF select_range(VecF a, VecF b, int from, int to) {
    for (int i = from; i < to; i++) b.v[i] = a.v[i];
    return b;
}
// Values out of int32's range only occur in steps that fail; keep them defined.
inline int32_t to_int1(float x) {
    float r = rint1(x);
    return r >= -0x1p31f && r < 0x1p31f ? static_cast<int32_t>(r) : INT32_MIN;
}
inline VecI to_int(VecF a) {
    VecI r;
    BW_LANES(r.v[i] = to_int1(a.v[i]));
    return r;
}
inline VecF to_float(VecI a) {
    VecF r;
    BW_LANES(r.v[i] = static_cast<float>(a.v[i]));
    return r;
}
inline VecI abs_bits(VecF a) {
    VecI r;
    std::memcpy(r.v, a.v, sizeof r.v);
    BW_LANES(r.v[i] &= 0x7fffffff);
    return r;
}
inline VecI iset1(int32_t x) {
    VecI r;
    BW_LANES(r.v[i] = x);
    return r;
}
inline VecI izero() { return iset1(0); }
inline VecI imax(VecI a, VecI b) {
    BW_LANES(a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]);
    return a;
}
inline VecI iadd(VecI a, VecI b) {
    BW_LANES(a.v[i] += b.v[i]);
    return a;
}
inline VecI isub(VecI a, VecI b) {
    BW_LANES(a.v[i] -= b.v[i]);
    return a;
}
inline VecI half_floor(VecI a) {
    BW_LANES(a.v[i] = a.v[i] >> 1);
    return a;
}
inline VecI shift_right_8(VecI a) {
    BW_LANES(a.v[i] = a.v[i] >> 8);
    return a;
}
inline VecI shift_right_16(VecI a) {
    BW_LANES(a.v[i] = a.v[i] >> 16);
    return a;
}
inline VecI low_16(VecI a) {
    BW_LANES(a.v[i] = a.v[i] & 0xffff);
    return a;
}
inline VecI shift_left_8(VecI a) {
    BW_LANES(a.v[i] = static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) << 8));
    return a;
}
inline VecI load_bytes(const uint8_t* p) {
    VecI a;
    BW_LANES(a.v[i] = p[i]);
    return a;
}
inline VecI shift_right_4(VecI a) {
    BW_LANES(a.v[i] = a.v[i] >> 4);
    return a;
}
inline VecF power_of_two(VecI n) {
    VecF r;
    BW_LANES(n.v[i] = static_cast<int32_t>(static_cast<uint32_t>(n.v[i] + 127) << 23));
    std::memcpy(r.v, n.v, sizeof r.v);
    return r;
}
inline void store_int(int32_t* p, VecI a) { std::memcpy(p, a.v, sizeof a.v); }
inline int32_t reduce_imax(VecI a) {
    int32_t best = a.v[0];
    BW_LANES(best = a.v[i] > best ? a.v[i] : best);
    return best;
}
inline int32_t reduce_iadd(VecI a) {
    int32_t sum = 0;
    BW_LANES(sum += a.v[i]);
    return sum;
}
inline void store_int8(int8_t* p, VecI a) { BW_LANES(p[i] = static_cast<int8_t>(a.v[i])); }
inline void store_int16(int16_t* p, VecI a) { BW_LANES(p[i] = static_cast<int16_t>(a.v[i])); }

inline float reduce_add(VecF a) {
    for (int width = 8; width >= 1; width /= 2)
        for (int i = 0; i < width; i++) a.v[i] += a.v[i + width];
    return a.v[0];
}
inline float reduce_max(VecF a) {
    float best = a.v[0];
    BW_LANES(best = a.v[i] > best ? a.v[i] : best);
    return best;
}

inline float half_to_float(uint16_t h) {
    uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
    uint32_t exponent = (h >> 10) & 31, fraction = h & 1023, bits;
    if (exponent == 0) {
        float value = static_cast<float>(fraction) * 0x1p-24f;
        std::memcpy(&bits, &value, sizeof bits);
    } else if (exponent == 31) {
        bits = 0x7f800000u | (fraction << 13);
    } else {
        bits = ((exponent + 112) << 23) | (fraction << 13);
    }
    bits |= sign;
    float result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}
inline uint16_t float_to_half(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00);
    if (bits >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00);  // rounds to infinity
    if (bits < 0x38800000u) {  // a subnormal half: round |x| * 2^24 to an integer, half to even
        float size;
        std::memcpy(&size, &bits, sizeof size);
        return static_cast<uint16_t>(sign | static_cast<uint16_t>(rint1(size * 0x1p24f)));
    }
    uint32_t rounded = bits + 0x0fff + ((bits >> 13) & 1);
    return static_cast<uint16_t>(sign | ((rounded >> 13) - (112u << 10)));
}
inline VecF load_half(const uint16_t* p) {
    VecF r;
    BW_LANES(r.v[i] = half_to_float(p[i]));
    return r;
}
inline void store_half(uint16_t* p, VecF a) { BW_LANES(p[i] = float_to_half(a.v[i])); }
inline VecF load_bf16(const uint16_t* p) {
    VecI wide;
    BW_LANES(wide.v[i] = static_cast<int32_t>(static_cast<uint32_t>(p[i]) << 16));
    VecF r;
    std::memcpy(r.v, wide.v, sizeof r.v);
    return r;
}
// Powers of two from their biased exponents; 0 is +0.
inline VecF load_exponents(const uint8_t* p) {
    VecI wide;
    BW_LANES(wide.v[i] = static_cast<int32_t>(static_cast<uint32_t>(p[i]) << 23));
    VecF r;
    std::memcpy(r.v, wide.v, sizeof r.v);
    return r;
}

struct Grid16 {
    int64_t v[16];
    bool bad;
};
// As vector instructions do it.
inline int64_t wrapping_add(int64_t a, int64_t b) {
    return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}
inline Grid16 grid_zero() { return {{}, false}; }
inline Grid16 grid_add(Grid16 g, VecF acc) {
    for (int i = 0; i < 16; i++) {
        float t = acc.v[i] * 0x1p24f;
        if (!(std::fabs(t) < 0x1p51f)) {
            g.bad = true;
            continue;
        }
        g.v[i] = wrapping_add(g.v[i], static_cast<int64_t>(rint1(t)));
    }
    return g;
}
inline bool grid_bad(const Grid16& g) { return g.bad; }
inline void grid_store(int64_t* p, const Grid16& g) { std::memcpy(p, g.v, sizeof g.v); }
inline void grid_accumulate(int64_t* p, const Grid16& g) {
    BW_LANES(p[i] = wrapping_add(p[i], g.v[i]));
}
inline VecF grid_to_float(const int64_t* p, bool* bad) {
    VecF r;
    for (int i = 0; i < 16; i++) {
        if (p[i] >= (int64_t{1} << 51) || p[i] <= -(int64_t{1} << 51)) *bad = true;
        r.v[i] = static_cast<float>(p[i]) * 0x1p-24f;
    }
    return r;
}
#undef BW_LANES

}  // namespace bw::portable
