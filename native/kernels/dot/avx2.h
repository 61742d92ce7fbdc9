// Integer dots on AVX2 alone: pair sums in int16 (4 bits), products of int16 (q8).
#pragma once
#include "kernels/dot/block.h"
#include "simd/vec16.h"

namespace bw::BW_ISA_NAME {

constexpr bool kBytePlanes = false;

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

struct DotQ8 : Q8Block {
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
