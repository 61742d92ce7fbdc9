// VecF, VecI and Grid16 on AVX-512 (F, BW, DQ, VL, VNNI).
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace bw::BW_ISA_NAME {

struct VecF {
    __m512 v;
};
struct VecI {
    __m512i v;
};

inline VecF zero() { return {_mm512_setzero_ps()}; }
inline VecF set1(float x) { return {_mm512_set1_ps(x)}; }
inline VecF load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, VecF a) { _mm512_storeu_ps(p, a.v); }
inline __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
inline VecF load_first(const float* p, int n) { return {_mm512_maskz_loadu_ps(first(n), p)}; }
inline void store_first(float* p, VecF a, int n) { _mm512_mask_storeu_ps(p, first(n), a.v); }

inline VecF add(VecF a, VecF b) { return {_mm512_add_ps(a.v, b.v)}; }
inline VecF sub(VecF a, VecF b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline VecF mul(VecF a, VecF b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline VecF div(VecF a, VecF b) { return {_mm512_div_ps(a.v, b.v)}; }
inline VecF sqrt(VecF a) { return {_mm512_sqrt_ps(a.v)}; }
inline VecF fma(VecF a, VecF b, VecF c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline float fma1(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline VecF neg(VecF a) {
    return {_mm512_castsi512_ps(
        _mm512_xor_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(INT32_MIN)))};
}
inline VecF rint(VecF a) {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// a > b ? a : b, and b where they do not compare.
inline VecF max(VecF a, VecF b) { return {_mm512_max_ps(a.v, b.v)}; }
// x below low becomes low, above high becomes high; NaN stays.
inline VecF clamp(VecF x, VecF low, VecF high) {
    return {_mm512_min_ps(high.v, _mm512_max_ps(low.v, x.v))};
}
// x where its magnitude is `bound` or more, or NaN; +0 elsewhere.
inline VecF at_least(VecF x, VecF bound) {
    const __mmask16 kept = _mm512_cmp_ps_mask(_mm512_abs_ps(x.v), bound.v, _CMP_NLT_UQ);
    return {_mm512_maskz_mov_ps(kept, x.v)};
}
// Lanes in [from, to) of a, of b elsewhere.
inline VecF select_range(VecF a, VecF b, int from, int to) {
    __mmask16 mask = static_cast<__mmask16>(((1u << to) - 1u) & ~((1u << from) - 1u));
    return {_mm512_mask_blend_ps(mask, b.v, a.v)};
}

inline VecI to_int(VecF a) { return {_mm512_cvtps_epi32(a.v)}; }
inline VecF to_float(VecI a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline VecI abs_bits(VecF a) {
    return {_mm512_and_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(0x7fffffff))};
}
inline VecI izero() { return {_mm512_setzero_si512()}; }
inline VecI imax(VecI a, VecI b) { return {_mm512_max_epi32(a.v, b.v)}; }
inline VecI iadd(VecI a, VecI b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline VecI isub(VecI a, VecI b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline VecI iset1(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline VecI half_floor(VecI a) { return {_mm512_srai_epi32(a.v, 1)}; }
// Unsigned bytes.
inline VecI load_bytes(const uint8_t* p) {
    return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline VecI shift_right_4(VecI a) { return {_mm512_srli_epi32(a.v, 4)}; }
// 2^n as a float, n in -126..127.
inline VecF power_of_two(VecI n) {
    return {
        _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n.v, _mm512_set1_epi32(127)), 23))};
}
inline int32_t reduce_imax(VecI a) { return _mm512_reduce_max_epi32(a.v); }
inline int32_t reduce_iadd(VecI a) { return _mm512_reduce_add_epi32(a.v); }
inline void store_int(int32_t* p, VecI a) { _mm512_storeu_si512(p, a.v); }
// Values known to fit.
inline void store_int8(int8_t* p, VecI a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
inline void store_int16(int16_t* p, VecI a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(a.v));
}
inline VecI shift_right_8(VecI a) { return {_mm512_srai_epi32(a.v, 8)}; }
inline VecI shift_right_16(VecI a) { return {_mm512_srai_epi32(a.v, 16)}; }
inline VecI low_16(VecI a) { return {_mm512_and_si512(a.v, _mm512_set1_epi32(0xffff))}; }
inline VecI shift_left_8(VecI a) { return {_mm512_slli_epi32(a.v, 8)}; }

// The fixed tree of docs/numerics.md section 5.
inline float reduce_add(VecF a) {
    __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    __m128 s1 = _mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1));
    return _mm_cvtss_f32(s1);
}
inline float reduce_max(VecF a) { return _mm512_reduce_max_ps(a.v); }

inline VecF load_half(const uint16_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline void store_half(uint16_t* p, VecF a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline VecF load_bf16(const uint16_t* p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
// Powers of two from their biased exponents; 0 is +0.
inline VecF load_exponents(const uint8_t* p) {
    __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 23))};
}

// 16 int64 sums on the grid of 2^-24.
struct Grid16 {
    __m512i low, high;
    __mmask16 bad;
};
inline Grid16 grid_zero() { return {_mm512_setzero_si512(), _mm512_setzero_si512(), 0}; }
inline Grid16 grid_add(Grid16 g, VecF acc) {
    __m512 t = _mm512_mul_ps(acc.v, _mm512_set1_ps(0x1p24f));
    __mmask16 out = _mm512_cmp_ps_mask(_mm512_abs_ps(t), _mm512_set1_ps(0x1p51f), _CMP_NLT_UQ);
    g.bad = static_cast<__mmask16>(g.bad | out);
    g.low = _mm512_add_epi64(g.low, _mm512_cvtps_epi64(_mm512_castps512_ps256(t)));
    g.high = _mm512_add_epi64(g.high, _mm512_cvtps_epi64(_mm512_extractf32x8_ps(t, 1)));
    return g;
}
inline bool grid_bad(const Grid16& g) { return g.bad != 0; }
inline void grid_store(int64_t* p, const Grid16& g) {
    _mm512_storeu_si512(p, g.low);
    _mm512_storeu_si512(p + 8, g.high);
}
inline void grid_accumulate(int64_t* p, const Grid16& g) {
    _mm512_storeu_si512(p, _mm512_add_epi64(_mm512_loadu_si512(p), g.low));
    _mm512_storeu_si512(p + 8, _mm512_add_epi64(_mm512_loadu_si512(p + 8), g.high));
}
// Sixteen grid sums as floats of their value; `bad` where a magnitude reaches 2^51.
inline VecF grid_to_float(const int64_t* p, bool* bad) {
    __m512i low = _mm512_loadu_si512(p), high = _mm512_loadu_si512(p + 8);
    const __m512i bound = _mm512_set1_epi64(int64_t{1} << 51);
    __mmask8 out = _mm512_cmpge_epu64_mask(_mm512_abs_epi64(low), bound) |
                   _mm512_cmpge_epu64_mask(_mm512_abs_epi64(high), bound);
    if (out) *bad = true;
    __m512 f = _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtepi64_ps(low)),
                                  _mm512_cvtepi64_ps(high), 1);
    return {_mm512_mul_ps(f, _mm512_set1_ps(0x1p-24f))};
}

}  // namespace bw::BW_ISA_NAME
