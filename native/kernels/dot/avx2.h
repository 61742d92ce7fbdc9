// Integer dots on AVX2 alone: pair sums in int16 (4 bits), products of int16 (q8).
#pragma once
#include "kernels/dot/block.h"
#include "simd/vec16.h"

#define BW_UNPACKS  // avx2_unpacked.h, for many rows

namespace bw::BW_ISA_NAME {

constexpr auto kWideIntegers = WideIntegers::even_first;
// Where lanes of pair sums have room for all columns that have a scale in common.
constexpr BW_INLINE bool corrects_pairs(Format format) {
    if (!keeps_blocks(format)) return format == Format::q4 || format == Format::mxfp4;
    return !block_shape(format).minima && !block_shape(format).book;
}

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

// Codes as the places of their values, whose pair sums fit an int16. Where all of a group's do, its
// correction is among them: what goes beyond an int16 on the way comes back.
template <class Codes>
struct CodePairs {
    static constexpr bool kAll = corrects_pairs(Codes::kFormat);
    static constexpr int kLargest = kAll ? Codes::kZeroPoint : Codes::kMost;
    static_assert(2 * 127 * Codes::kMost <= 32767, "a pair sum fits");
    static_assert(!kAll || (8 * 2 * 127 * kLargest <= 32767 && Codes::kMost <= 2 * kLargest),
                  "so do all with their correction");

    static BW_INLINE void split(__m256i q, __m256i* low, __m256i* high) {
        const __m256i mask = _mm256_set1_epi8(15);
        *low = places(_mm256_and_si256(q, mask));
        *high = places(_mm256_and_si256(_mm256_srli_epi16(q, 4), mask));
    }

  private:
    static BW_INLINE __m256i places(__m256i codes) {
        if constexpr (Codes::kInOrder) return codes;
        const auto* table = reinterpret_cast<const __m128i*>(kPlaces<Codes>.of);
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table)), codes);
    }
};

BW_INLINE __m256i widened(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }

// Of few rows: more come to their sums by way of avx2_unpacked.h.
template <class Codes>
struct DotCodes : CodeBlock<Codes> {
    using Pairs = CodePairs<Codes>;
    static constexpr int kMostRows = 2;
    template <int R>
    static inline void group(const uint8_t* block, const uint8_t* const* a, const int32_t* sum,
                             VecI* dot) {
        const uint8_t* lines = block + CodeBlock<Codes>::kScaleBytes;
        __m256i sums[R][2];  // of pairs, or wider
        for (int r = 0; r < R; r++) sums[r][0] = sums[r][1] = _mm256_set1_epi32(sum[r]);
        for (int j = 0; j < 4; j++) {
            for (int half = 0; half < 2; half++) {
                __m256i low, high;
                Pairs::split(_mm256_loadu_si256(
                                 reinterpret_cast<const __m256i*>(lines + 64 * j + 32 * half)),
                             &low, &high);
                for (int r = 0; r < R; r++) {
                    __m256i& s = sums[r][half];
                    const __m256i x =
                        _mm256_maddubs_epi16(low, _mm256_set1_epi32(four(a[r] + 4 * j)));
                    const __m256i y =
                        _mm256_maddubs_epi16(high, _mm256_set1_epi32(four(a[r] + 16 + 4 * j)));
                    if constexpr (Pairs::kAll)
                        s = _mm256_add_epi16(s, _mm256_add_epi16(x, y));
                    else
                        s = _mm256_add_epi32(s, _mm256_add_epi32(widened(x), widened(y)));
                }
            }
        }
        for (int r = 0; r < R; r++) {
            dot[r] = {sums[r][0], sums[r][1]};
            if constexpr (Pairs::kAll) dot[r] = {widened(sums[r][0]), widened(sums[r][1])};
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
