// VecF, VecI and Grid16 on 64-bit Arm's NEON: four 4-lane registers each. Comparisons and selects
// stand where the processor's own maximum treats a NaN unlike x86's.
#pragma once
#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace bw::BW_ISA_NAME {

struct VecF {
    float32x4_t a, b, c, d;
};
struct VecI {
    int32x4_t a, b, c, d;
};

// A function of registers, on the four of each operand.
#define BW_ON_ONE(function, x) {function(x.a), function(x.b), function(x.c), function(x.d)}
#define BW_ON_TWO(function, x, y) \
    {function(x.a, y.a), function(x.b, y.b), function(x.c, y.c), function(x.d, y.d)}

inline VecF set1(float x) {
    const float32x4_t v = vdupq_n_f32(x);
    return {v, v, v, v};
}
inline VecF zero() { return set1(0.0f); }
inline VecF load(const float* p) {
    return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}
inline void store(float* p, VecF x) {
    vst1q_f32(p, x.a);
    vst1q_f32(p + 4, x.b);
    vst1q_f32(p + 8, x.c);
    vst1q_f32(p + 12, x.d);
}
inline VecF load_first(const float* p, int n) {
    float padded[16] = {};
    std::memcpy(padded, p, sizeof(float) * static_cast<size_t>(n));
    return load(padded);
}
inline void store_first(float* p, VecF x, int n) {
    float padded[16];
    store(padded, x);
    std::memcpy(p, padded, sizeof(float) * static_cast<size_t>(n));
}

inline VecF add(VecF x, VecF y) { return BW_ON_TWO(vaddq_f32, x, y); }
inline VecF sub(VecF x, VecF y) { return BW_ON_TWO(vsubq_f32, x, y); }
inline VecF mul(VecF x, VecF y) { return BW_ON_TWO(vmulq_f32, x, y); }
inline VecF div(VecF x, VecF y) { return BW_ON_TWO(vdivq_f32, x, y); }
inline VecF sqrt(VecF x) { return BW_ON_ONE(vsqrtq_f32, x); }
inline VecF fma(VecF x, VecF y, VecF z) {
    return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c),
            vfmaq_f32(z.d, x.d, y.d)};
}
inline float fma1(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline VecF neg(VecF x) { return BW_ON_ONE(vnegq_f32, x); }
inline VecF rint(VecF x) { return BW_ON_ONE(vrndnq_f32, x); }
// x > y ? x : y, and y where they do not compare.
inline float32x4_t larger(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
inline VecF max(VecF x, VecF y) { return BW_ON_TWO(larger, x, y); }
// x below low becomes low, above high becomes high; NaN stays.
inline VecF clamp(VecF x, VecF low, VecF high) {
    const auto one = [](float32x4_t v, float32x4_t bottom, float32x4_t top) {
        v = vbslq_f32(vcltq_f32(v, bottom), bottom, v);
        return vbslq_f32(vcgtq_f32(v, top), top, v);
    };
    return {one(x.a, low.a, high.a), one(x.b, low.b, high.b), one(x.c, low.c, high.c),
            one(x.d, low.d, high.d)};
}
// x where its magnitude is `bound` or more, or NaN; +0 elsewhere.
inline float32x4_t not_below(float32x4_t x, float32x4_t bound) {
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(x), vcaltq_f32(x, bound)));
}
inline VecF at_least(VecF x, VecF bound) { return BW_ON_TWO(not_below, x, bound); }
// Lanes in [from, to) of x, of y elsewhere.
inline VecF select_range(VecF x, VecF y, int from, int to) {
    float xs[16], ys[16];
    store(xs, x);
    store(ys, y);
    for (int i = from; i < to; i++) ys[i] = xs[i];
    return load(ys);
}

inline VecI to_int(VecF x) { return BW_ON_ONE(vcvtnq_s32_f32, x); }
inline VecF to_float(VecI x) { return BW_ON_ONE(vcvtq_f32_s32, x); }
inline int32x4_t size_bits(float32x4_t x) {
    return vandq_s32(vreinterpretq_s32_f32(x), vdupq_n_s32(0x7fffffff));
}
inline VecI abs_bits(VecF x) { return BW_ON_ONE(size_bits, x); }
inline VecI iset1(int32_t x) {
    const int32x4_t v = vdupq_n_s32(x);
    return {v, v, v, v};
}
inline VecI izero() { return iset1(0); }
inline VecI imax(VecI x, VecI y) { return BW_ON_TWO(vmaxq_s32, x, y); }
inline VecI iadd(VecI x, VecI y) { return BW_ON_TWO(vaddq_s32, x, y); }
inline VecI isub(VecI x, VecI y) { return BW_ON_TWO(vsubq_s32, x, y); }
inline VecI half_floor(VecI x) {
    return {vshrq_n_s32(x.a, 1), vshrq_n_s32(x.b, 1), vshrq_n_s32(x.c, 1), vshrq_n_s32(x.d, 1)};
}
inline VecI shift_right_8(VecI x) {
    return {vshrq_n_s32(x.a, 8), vshrq_n_s32(x.b, 8), vshrq_n_s32(x.c, 8), vshrq_n_s32(x.d, 8)};
}
inline VecI shift_left_8(VecI x) {
    return {vshlq_n_s32(x.a, 8), vshlq_n_s32(x.b, 8), vshlq_n_s32(x.c, 8), vshlq_n_s32(x.d, 8)};
}
inline VecI shift_right_16(VecI x) {
    return {vshrq_n_s32(x.a, 16), vshrq_n_s32(x.b, 16), vshrq_n_s32(x.c, 16), vshrq_n_s32(x.d, 16)};
}
inline VecI low_16(VecI x) {
    const int32x4_t mask = vdupq_n_s32(0xffff);
    return {vandq_s32(x.a, mask), vandq_s32(x.b, mask), vandq_s32(x.c, mask), vandq_s32(x.d, mask)};
}
// Unsigned bytes.
inline VecI load_bytes(const uint8_t* p) {
    const uint8x16_t bytes = vld1q_u8(p);
    const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
    return {vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))),
            vreinterpretq_s32_u32(vmovl_high_u16(low)),
            vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))),
            vreinterpretq_s32_u32(vmovl_high_u16(high))};
}
inline VecI shift_right_4(VecI x) {
    return {vshrq_n_s32(x.a, 4), vshrq_n_s32(x.b, 4), vshrq_n_s32(x.c, 4), vshrq_n_s32(x.d, 4)};
}
// 2^n as a float, n in -126..127.
inline float32x4_t two_to(int32x4_t n) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
}
inline VecF power_of_two(VecI n) { return BW_ON_ONE(two_to, n); }
inline void store_int(int32_t* p, VecI x) {
    vst1q_s32(p, x.a);
    vst1q_s32(p + 4, x.b);
    vst1q_s32(p + 8, x.c);
    vst1q_s32(p + 12, x.d);
}
inline int32_t reduce_imax(VecI x) {
    return vmaxvq_s32(vmaxq_s32(vmaxq_s32(x.a, x.b), vmaxq_s32(x.c, x.d)));
}
inline int32_t reduce_iadd(VecI x) {
    return vaddvq_s32(vaddq_s32(vaddq_s32(x.a, x.b), vaddq_s32(x.c, x.d)));
}
// Values known to fit.
inline void store_int16(int16_t* p, VecI x) {
    vst1q_s16(p, vmovn_high_s32(vmovn_s32(x.a), x.b));
    vst1q_s16(p + 8, vmovn_high_s32(vmovn_s32(x.c), x.d));
}
inline void store_int8(int8_t* p, VecI x) {
    const int16x8_t low = vmovn_high_s32(vmovn_s32(x.a), x.b);
    const int16x8_t high = vmovn_high_s32(vmovn_s32(x.c), x.d);
    vst1q_s8(p, vmovn_high_s16(vmovn_s16(low), high));
}

// The fixed tree of docs/numerics.md section 5.
inline float reduce_add(VecF x) {
    const float32x4_t s4 = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
    const float32x2_t s2 = vadd_f32(vget_low_f32(s4), vget_high_f32(s4));
    return vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1);
}
inline float reduce_max(VecF x) {
    const float32x4_t m4 = larger(larger(x.a, x.c), larger(x.b, x.d));
    float lanes[4];
    vst1q_f32(lanes, m4);
    float best = lanes[0];
    for (int i = 1; i < 4; i++) best = lanes[i] > best ? lanes[i] : best;
    return best;
}

inline VecF load_half(const uint16_t* p) {
    const float16x8_t low = vreinterpretq_f16_u16(vld1q_u16(p));
    const float16x8_t high = vreinterpretq_f16_u16(vld1q_u16(p + 8));
    return {vcvt_f32_f16(vget_low_f16(low)), vcvt_high_f32_f16(low),
            vcvt_f32_f16(vget_low_f16(high)), vcvt_high_f32_f16(high)};
}
inline void store_half(uint16_t* p, VecF x) {
    vst1q_u16(p, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.a), x.b)));
    vst1q_u16(p + 8, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.c), x.d)));
}
inline VecF load_bf16(const uint16_t* p) {
    const uint16x8_t low = vld1q_u16(p), high = vld1q_u16(p + 8);
    return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(low), 16)),
            vreinterpretq_f32_u32(vshll_high_n_u16(low, 16)),
            vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(high), 16)),
            vreinterpretq_f32_u32(vshll_high_n_u16(high, 16))};
}
// Powers of two from their biased exponents; 0 is +0.
inline VecF load_exponents(const uint8_t* p) {
    const uint8x16_t bytes = vld1q_u8(p);
    // To the exponent of a bf16 first: shifts that widen go no further than an element's bits.
    const uint16x8_t low = vshll_n_u8(vget_low_u8(bytes), 7);
    const uint16x8_t high = vshll_high_n_u8(bytes, 7);
    return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(low), 16)),
            vreinterpretq_f32_u32(vshll_high_n_u16(low, 16)),
            vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(high), 16)),
            vreinterpretq_f32_u32(vshll_high_n_u16(high, 16))};
}

// 16 int64 sums on the grid of 2^-24.
struct Grid16 {
    int64x2_t q[8];
    uint32x4_t bad;
};
inline Grid16 grid_zero() {
    const int64x2_t z = vdupq_n_s64(0);
    return {{z, z, z, z, z, z, z, z}, vdupq_n_u32(0)};
}
inline Grid16 grid_add(Grid16 g, VecF acc) {
    const float32x4_t scale = vdupq_n_f32(0x1p24f), bound = vdupq_n_f32(0x1p51f);
    const VecF t = {vmulq_f32(acc.a, scale), vmulq_f32(acc.b, scale), vmulq_f32(acc.c, scale),
                    vmulq_f32(acc.d, scale)};
    const auto add_four = [&](int64x2_t& low, int64x2_t& high, float32x4_t x) {
        // Not below the bound: a NaN counts as bad too.
        g.bad = vorrq_u32(g.bad, vmvnq_u32(vcaltq_f32(x, bound)));
        low = vaddq_s64(low, vcvtnq_s64_f64(vcvt_f64_f32(vget_low_f32(x))));
        high = vaddq_s64(high, vcvtnq_s64_f64(vcvt_high_f64_f32(x)));
    };
    add_four(g.q[0], g.q[1], t.a);
    add_four(g.q[2], g.q[3], t.b);
    add_four(g.q[4], g.q[5], t.c);
    add_four(g.q[6], g.q[7], t.d);
    return g;
}
inline bool grid_bad(const Grid16& g) { return vmaxvq_u32(g.bad) != 0; }
inline void grid_store(int64_t* p, const Grid16& g) {
    for (int i = 0; i < 8; i++) vst1q_s64(p + 2 * i, g.q[i]);
}
inline void grid_accumulate(int64_t* p, const Grid16& g) {
    for (int i = 0; i < 8; i++) vst1q_s64(p + 2 * i, vaddq_s64(vld1q_s64(p + 2 * i), g.q[i]));
}
// Sixteen grid sums as floats of their value; `bad` where a magnitude reaches 2^51. Below that the
// way over binary64 is exact, so that only its end rounds.
inline VecF grid_to_float(const int64_t* p, bool* bad) {
    const int64x2_t bound = vdupq_n_s64(int64_t{1} << 51);
    uint64x2_t out = vdupq_n_u64(0);
    const auto four = [&](const int64_t* at) {
        const int64x2_t low = vld1q_s64(at), high = vld1q_s64(at + 2);
        out = vorrq_u64(
            out, vcgeq_u64(vreinterpretq_u64_s64(vabsq_s64(low)), vreinterpretq_u64_s64(bound)));
        out = vorrq_u64(
            out, vcgeq_u64(vreinterpretq_u64_s64(vabsq_s64(high)), vreinterpretq_u64_s64(bound)));
        return vcvt_high_f32_f64(vcvt_f32_f64(vcvtq_f64_s64(low)), vcvtq_f64_s64(high));
    };
    VecF sum = {four(p), four(p + 4), four(p + 8), four(p + 12)};
    if (vgetq_lane_u64(out, 0) | vgetq_lane_u64(out, 1)) *bad = true;
    return mul(sum, set1(0x1p-24f));
}

#undef BW_ON_ONE
#undef BW_ON_TWO

}  // namespace bw::BW_ISA_NAME
