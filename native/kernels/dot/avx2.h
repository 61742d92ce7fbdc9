// Integer dots on AVX2 alone: pair sums in int16 (q4), products of int16 (q8).
#pragma once
#include "kernels/dot/block.h"
#include "simd/vec16.h"

namespace bw::BW_ISA_NAME {

constexpr bool kBytePlanes = false;

struct DotQ4 {
    static constexpr size_t kBlock = kQ4Block, kIntegers = activation_integers(Format::q4);
    static constexpr int kMostRows = 8;
    template <int R>
    static inline void group(const uint8_t* block, const uint8_t* const* a, const int32_t* sum,
                             VecI* dot) {
        const __m256i mask = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
        // Eight pair sums of at most 15 * 127 * 2 fit int16.
        __m256i pairs[R][2];
        for (int r = 0; r < R; r++) pairs[r][0] = pairs[r][1] = _mm256_setzero_si256();
        for (int j = 0; j < 4; j++) {
            for (int half = 0; half < 2; half++) {
                __m256i q = _mm256_loadu_si256(
                    reinterpret_cast<const __m256i*>(block + kScaleBytes + 64 * j + 32 * half));
                __m256i low = _mm256_and_si256(q, mask);
                __m256i high = _mm256_and_si256(_mm256_srli_epi16(q, 4), mask);
                for (int r = 0; r < R; r++) {
                    __m256i al = _mm256_set1_epi32(four(a[r] + 4 * j));
                    __m256i ah = _mm256_set1_epi32(four(a[r] + 16 + 4 * j));
                    __m256i both = _mm256_add_epi16(_mm256_maddubs_epi16(low, al),
                                                    _mm256_maddubs_epi16(high, ah));
                    pairs[r][half] = _mm256_add_epi16(pairs[r][half], both);
                }
            }
        }
        for (int r = 0; r < R; r++) {
            __m256i s = _mm256_set1_epi32(sum[r]);
            dot[r] = {_mm256_add_epi32(s, _mm256_madd_epi16(pairs[r][0], ones)),
                      _mm256_add_epi32(s, _mm256_madd_epi16(pairs[r][1], ones))};
        }
    }
};

struct DotQ8 {
    static constexpr size_t kBlock = kQ8Block, kIntegers = activation_integers(Format::q8);
    static constexpr int kMostRows = 4;
    template <int R>
    static inline void group(const uint8_t* block, const uint8_t* const* a, const int32_t*,
                             VecI* dot) {
        // Bytes of four outputs (16) widen to int16; a pair of k meets in madd, pairs in hadd.
        const __m128i flip = _mm_set1_epi8(static_cast<char>(0x80));
        __m256i sums[R][4];
        for (int r = 0; r < R; r++)
            for (int i = 0; i < 4; i++) sums[r][i] = _mm256_setzero_si256();
        for (int j = 0; j < 8; j++) {
            for (int i = 0; i < 4; i++) {
                __m128i bytes = _mm_loadu_si128(
                    reinterpret_cast<const __m128i*>(block + kScaleBytes + 64 * j + 16 * i));
                __m256i wide = _mm256_cvtepi8_epi16(_mm_xor_si128(bytes, flip));
                for (int r = 0; r < R; r++) {
                    int64_t word;
                    __builtin_memcpy(&word, a[r] + 8 * j, sizeof word);
                    __m256i products = _mm256_madd_epi16(wide, _mm256_set1_epi64x(word));
                    sums[r][i] = _mm256_add_epi32(sums[r][i], products);
                }
            }
        }
        for (int r = 0; r < R; r++) {
            // hadd interleaves the 128-bit halves: outputs 0 1 4 5 | 2 3 6 7.
            __m256i low = _mm256_hadd_epi32(sums[r][0], sums[r][1]);
            __m256i high = _mm256_hadd_epi32(sums[r][2], sums[r][3]);
            dot[r] = {_mm256_permute4x64_epi64(low, 0xd8), _mm256_permute4x64_epi64(high, 0xd8)};
        }
    }
};

}  // namespace bw::BW_ISA_NAME
