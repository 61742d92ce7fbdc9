// Integer dots on AVX2 alone: pair sums in int16 (4 bits), products of int16 (q8).
#pragma once
#include "kernels/dot/block.h"
#include "simd/vec16.h"

#define BW_UNPACKS  // avx2_unpacked.h, for many rows

namespace bw::BW_ISA_NAME {

constexpr auto kWideIntegers = WideIntegers::even_first;
constexpr bool kPairSums = true;

// x + y, now. Left to itself a compiler puts long sums of integers in another order and keeps all
// that they consist of until then, more than there are registers.
BW_INLINE __m256i add_16(__m256i x, __m256i y) {
    __m256i sum = _mm256_add_epi16(x, y);
    __asm__("" : "+x"(sum));
    return sum;
}
BW_INLINE __m256i add_32(__m256i x, __m256i y) {
    __m256i sum = _mm256_add_epi32(x, y);
    __asm__("" : "+x"(sum));
    return sum;
}

template <class Codes>
struct DotCodes : CodeBlock<Codes> {
    using CodeBlock<Codes>::kScaleBytes;
    // So many pair sums fit an int16 together, of the 8 that two lanes of a group's dots have.
    static constexpr int kFit = 32767 / (2 * 127 * Codes::kMost);
    static constexpr int kMostRows = kFit < 8 ? 4 : 8;  // wider sums take registers of their own
    template <int R>
    static inline void group(const uint8_t* block, const uint8_t* const* a, const int32_t* sum,
                             VecI* dot) {
        const uint8_t* lines = block + kScaleBytes;
        if constexpr (kFit >= 8) {
            __m256i pairs[R][2];
            for (int r = 0; r < R; r++) pairs[r][0] = pairs[r][1] = _mm256_setzero_si256();
            for (int j = 0; j < 4; j++)
                for (int half = 0; half < 2; half++) add_line<R>(lines, a, j, half, pairs, half);
            for (int r = 0; r < R; r++) {
                const __m256i s = _mm256_set1_epi32(sum[r]);
                dot[r] = {_mm256_add_epi32(s, widened(pairs[r][0])),
                          _mm256_add_epi32(s, widened(pairs[r][1]))};
            }
        } else {
            // One half of the outputs after the other.
            __m256i first[R], second[R];
            half_of_outputs<R>(lines, a, sum, 0, first);
            half_of_outputs<R>(lines, a, sum, 1, second);
            for (int r = 0; r < R; r++) dot[r] = {first[r], second[r]};
        }
    }

  private:
    static inline __m256i places(__m256i codes) {
        if constexpr (Codes::kInOrder) return codes;
        const auto* table = reinterpret_cast<const __m128i*>(kPlaces<Codes>.of);
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table)), codes);
    }
    static inline __m256i widened(__m256i pairs) {
        return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
    static inline void split(const uint8_t* lines, int j, int half, __m256i* low, __m256i* high) {
        const __m256i mask = _mm256_set1_epi8(15);
        const __m256i q =
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lines + 64 * j + 32 * half));
        *low = places(_mm256_and_si256(q, mask));
        *high = places(_mm256_and_si256(_mm256_srli_epi16(q, 4), mask));
    }
    // Adds the two pair sums of line j to pairs[r][to].
    template <int R, int kTo>
    static inline void add_line(const uint8_t* lines, const uint8_t* const* a, int j, int half,
                                __m256i (*pairs)[kTo], int to) {
        __m256i low, high;
        split(lines, j, half, &low, &high);
        for (int r = 0; r < R; r++) {
            const __m256i al = _mm256_set1_epi32(four(a[r] + 4 * j));
            const __m256i ah = _mm256_set1_epi32(four(a[r] + 16 + 4 * j));
            const __m256i both =
                _mm256_add_epi16(_mm256_maddubs_epi16(low, al), _mm256_maddubs_epi16(high, ah));
            pairs[r][to] = _mm256_add_epi16(pairs[r][to], both);
        }
    }
    template <int R>
    static inline void half_of_outputs(const uint8_t* lines, const uint8_t* const* a,
                                       const int32_t* sum, int half, __m256i* dots) {
        for (int r = 0; r < R; r++) dots[r] = _mm256_set1_epi32(sum[r]);
        if constexpr (kFit >= 4) {
            for (int j = 0; j < 4; j += 2) {
                __m256i pairs[R][1];
                for (int r = 0; r < R; r++) pairs[r][0] = _mm256_setzero_si256();
                add_line<R>(lines, a, j, half, pairs, 0);
                add_line<R>(lines, a, j + 1, half, pairs, 0);
                for (int r = 0; r < R; r++)
                    dots[r] = _mm256_add_epi32(dots[r], widened(pairs[r][0]));
            }
            return;
        }
        static_assert(kFit >= 1, "a pair's products must fit an int16");
        for (int j = 0; j < 4; j++) {
            __m256i low, high;
            split(lines, j, half, &low, &high);
            for (int r = 0; r < R; r++) {
                const __m256i al = _mm256_set1_epi32(four(a[r] + 4 * j));
                const __m256i ah = _mm256_set1_epi32(four(a[r] + 16 + 4 * j));
                dots[r] = _mm256_add_epi32(dots[r], widened(_mm256_maddubs_epi16(low, al)));
                dots[r] = _mm256_add_epi32(dots[r], widened(_mm256_maddubs_epi16(high, ah)));
            }
        }
    }
};

// Of few rows: more come to their sums by way of avx2_unpacked.h.
struct DotQ8 : Q8Block {
    static constexpr int kMostRows = 2;
    // Of four columns of each output the first and the third, the others, as int16.
    static BW_INLINE __m256i even(__m256i bytes) {
        return _mm256_and_si256(bytes, _mm256_set1_epi16(255));
    }
    static BW_INLINE __m256i odd(__m256i bytes) { return _mm256_srli_epi16(bytes, 8); }

    template <int R>
    static inline void group(const uint8_t* block, const uint8_t* const* a, const int32_t* sum,
                             VecI* dot) {
        __m256i evens[R][2], odds[R][2];
        for (int r = 0; r < R; r++) {
            evens[r][0] = evens[r][1] = _mm256_set1_epi32(sum[r]);
            odds[r][0] = odds[r][1] = _mm256_setzero_si256();
        }
        for (int j = 0; j < 8; j++) {
            for (int half = 0; half < 2; half++) {
                const __m256i q = _mm256_loadu_si256(
                    reinterpret_cast<const __m256i*>(block + kScaleBytes + 64 * j + 32 * half));
                for (int r = 0; r < R; r++) {
                    const __m256i x = _mm256_set1_epi32(four(a[r] + 8 * j));
                    const __m256i y = _mm256_set1_epi32(four(a[r] + 8 * j + 4));
                    evens[r][half] = add_32(evens[r][half], _mm256_madd_epi16(even(q), x));
                    odds[r][half] = add_32(odds[r][half], _mm256_madd_epi16(odd(q), y));
                }
            }
        }
        for (int r = 0; r < R; r++)
            dot[r] = {_mm256_add_epi32(evens[r][0], odds[r][0]),
                      _mm256_add_epi32(evens[r][1], odds[r][1])};
    }
};

}  // namespace bw::BW_ISA_NAME
