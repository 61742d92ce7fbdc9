// VecF, VecI and Grid16 on AVX2, FMA and F16C: two 8-lane registers each.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace bw::BW_ISA_NAME {

struct VecF {
    __m256 a, b;
};
struct VecI {
    __m256i a, b;
};

inline VecF zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline VecF set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline VecF load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, VecF v) {
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
}
inline VecF load_first(const float* p, int n) {
    float padded[16] = {};
    std::memcpy(padded, p, sizeof(float) * static_cast<size_t>(n));
    return load(padded);
}
inline void store_first(float* p, VecF v, int n) {
    float padded[16];
    store(padded, v);
    std::memcpy(p, padded, sizeof(float) * static_cast<size_t>(n));
}

inline VecF add(VecF x, VecF y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline VecF sub(VecF x, VecF y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline VecF mul(VecF x, VecF y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline VecF div(VecF x, VecF y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline VecF sqrt(VecF x) { return {_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
inline VecF fma(VecF x, VecF y, VecF z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline float fma1(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline VecF neg(VecF x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_xor_ps(x.a, sign), _mm256_xor_ps(x.b, sign)};
}
inline VecF rint(VecF x) {
    constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.a, mode), _mm256_round_ps(x.b, mode)};
}
inline VecF max(VecF x, VecF y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline VecF clamp(VecF x, VecF low, VecF high) {
    return {_mm256_min_ps(high.a, _mm256_max_ps(low.a, x.a)),
            _mm256_min_ps(high.b, _mm256_max_ps(low.b, x.b))};
}
inline __m256 at_least(__m256 x, __m256 bound) {
    const __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
    return _mm256_and_ps(x, _mm256_cmp_ps(size, bound, _CMP_NLT_UQ));
}
inline VecF at_least(VecF x, VecF bound) {
    return {at_least(x.a, bound.a), at_least(x.b, bound.b)};
}
inline VecF select_range(VecF x, VecF y, int from, int to) {
    float xs[16], ys[16];
    store(xs, x);
    store(ys, y);
    for (int i = from; i < to; i++) ys[i] = xs[i];
    return load(ys);
}

inline VecI to_int(VecF x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
inline VecF to_float(VecI x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline VecI abs_bits(VecF x) {
    const __m256i mask = _mm256_set1_epi32(0x7fffffff);
    return {_mm256_and_si256(_mm256_castps_si256(x.a), mask),
            _mm256_and_si256(_mm256_castps_si256(x.b), mask)};
}
inline VecI izero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline VecI imax(VecI x, VecI y) {
    return {_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)};
}
inline VecI iadd(VecI x, VecI y) {
    return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)};
}
inline VecI isub(VecI x, VecI y) {
    return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)};
}
inline VecI iset1(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline VecI half_floor(VecI x) { return {_mm256_srai_epi32(x.a, 1), _mm256_srai_epi32(x.b, 1)}; }
inline VecI shift_right_8(VecI x) { return {_mm256_srai_epi32(x.a, 8), _mm256_srai_epi32(x.b, 8)}; }
inline VecI shift_right_16(VecI x) {
    return {_mm256_srai_epi32(x.a, 16), _mm256_srai_epi32(x.b, 16)};
}
inline VecI low_16(VecI x) {
    const __m256i mask = _mm256_set1_epi32(0xffff);
    return {_mm256_and_si256(x.a, mask), _mm256_and_si256(x.b, mask)};
}
inline VecI shift_left_8(VecI x) { return {_mm256_slli_epi32(x.a, 8), _mm256_slli_epi32(x.b, 8)}; }
inline VecI load_bytes(const uint8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
}
inline VecI shift_right_4(VecI x) { return {_mm256_srli_epi32(x.a, 4), _mm256_srli_epi32(x.b, 4)}; }
inline VecF power_of_two(VecI n) {
    const __m256i bias = _mm256_set1_epi32(127);
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n.a, bias), 23)),
            _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n.b, bias), 23))};
}
inline void store_int(int32_t* p, VecI x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.a);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), x.b);
}
inline int32_t reduce_imax(VecI x) {
    int32_t lanes[16], best;
    store_int(lanes, x);
    best = lanes[0];
    for (int i = 1; i < 16; i++) best = lanes[i] > best ? lanes[i] : best;
    return best;
}
inline int32_t reduce_iadd(VecI x) {
    int32_t lanes[16], sum = 0;
    store_int(lanes, x);
    for (int i = 0; i < 16; i++) sum += lanes[i];
    return sum;
}
inline void store_int8(int8_t* p, VecI x) {
    int32_t lanes[16];
    store_int(lanes, x);
    for (int i = 0; i < 16; i++) p[i] = static_cast<int8_t>(lanes[i]);
}
inline void store_int16(int16_t* p, VecI x) {
    int32_t lanes[16];
    store_int(lanes, x);
    for (int i = 0; i < 16; i++) p[i] = static_cast<int16_t>(lanes[i]);
}

inline float reduce_add(VecF x) {
    __m256 s8 = _mm256_add_ps(x.a, x.b);
    __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    __m128 s1 = _mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1));
    return _mm_cvtss_f32(s1);
}
inline float reduce_max(VecF x) {
    __m256 m8 = _mm256_max_ps(x.a, x.b);
    __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
    __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_max_ss(m2, _mm_shuffle_ps(m2, m2, 1)));
}

inline VecF load_half(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
            _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
inline void store_half(uint16_t* p, VecF x) {
    constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.a, mode));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(x.b, mode));
}
inline VecF load_bf16(const uint16_t* p) {
    __m256i a = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    __m256i b = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
}
// Powers of two from their biased exponents; 0 is +0.
inline VecF load_exponents(const uint8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m256i a = _mm256_cvtepu8_epi32(bytes);
    const __m256i b = _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(a, 23)),
            _mm256_castsi256_ps(_mm256_slli_epi32(b, 23))};
}

struct Grid16 {
    __m256i q[4];
    int bad;
};
inline Grid16 grid_zero() {
    const __m256i z = _mm256_setzero_si256();
    return {{z, z, z, z}, 0};
}
// |t| < 2^51: adding 1.5 * 2^52 in binary64 rounds to an integer, half to even.
inline __m256i grid_round(__m128 t) {
    const __m256d magic = _mm256_set1_pd(0x1.8p52);
    __m256d shifted = _mm256_add_pd(_mm256_cvtps_pd(t), magic);
    return _mm256_sub_epi64(_mm256_castpd_si256(shifted), _mm256_castpd_si256(magic));
}
inline Grid16 grid_add(Grid16 g, VecF acc) {
    const __m256 scale = _mm256_set1_ps(0x1p24f), bound = _mm256_set1_ps(0x1p51f);
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 ta = _mm256_mul_ps(acc.a, scale), tb = _mm256_mul_ps(acc.b, scale);
    g.bad |= _mm256_movemask_ps(_mm256_cmp_ps(_mm256_andnot_ps(sign, ta), bound, _CMP_NLT_UQ));
    g.bad |= _mm256_movemask_ps(_mm256_cmp_ps(_mm256_andnot_ps(sign, tb), bound, _CMP_NLT_UQ));
    g.q[0] = _mm256_add_epi64(g.q[0], grid_round(_mm256_castps256_ps128(ta)));
    g.q[1] = _mm256_add_epi64(g.q[1], grid_round(_mm256_extractf128_ps(ta, 1)));
    g.q[2] = _mm256_add_epi64(g.q[2], grid_round(_mm256_castps256_ps128(tb)));
    g.q[3] = _mm256_add_epi64(g.q[3], grid_round(_mm256_extractf128_ps(tb, 1)));
    return g;
}
inline bool grid_bad(const Grid16& g) { return g.bad != 0; }
inline void grid_store(int64_t* p, const Grid16& g) {
    for (int i = 0; i < 4; i++) _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 4 * i), g.q[i]);
}
inline void grid_accumulate(int64_t* p, const Grid16& g) {
    for (int i = 0; i < 4; i++) {
        auto* at = reinterpret_cast<__m256i*>(p + 4 * i);
        _mm256_storeu_si256(at, _mm256_add_epi64(_mm256_loadu_si256(at), g.q[i]));
    }
}
inline VecF grid_to_float(const int64_t* p, bool* bad) {
    float out[16];
    for (int i = 0; i < 16; i++) {
        if (p[i] >= (int64_t{1} << 51) || p[i] <= -(int64_t{1} << 51)) *bad = true;
        out[i] = static_cast<float>(p[i]);
    }
    return mul(load(out), set1(0x1p-24f));
}

}  // namespace bw::BW_ISA_NAME
