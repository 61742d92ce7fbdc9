// Integer dots on AVX2 with AVX-VNNI: unsigned weights times signed activations, 4 k an
// instruction.
#pragma once
#include "kernels/dot/block.h"
#include "simd/vec16.h"

namespace bw::BW_ISA_NAME {

constexpr auto kWideIntegers = WideIntegers::planes;
constexpr BW_INLINE bool corrects_pairs(Format) { return false; }

#if defined(__AVXVNNI__)
inline __m256i dot4(__m256i acc, __m256i w, __m256i a) {
    return _mm256_dpbusd_avx_epi32(acc, w, a);
}
#else
// The same operation in AVX-512's encoding, so that machines without AVX-VNNI can test this file.
inline __m256i dot4(__m256i acc, __m256i w, __m256i a) { return _mm256_dpbusd_epi32(acc, w, a); }
#endif

inline __m256i load_half_line(const uint8_t* line, int half) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line + 32 * half));
}
// The places of 32 codes.
template <class Codes>
inline __m256i places(__m256i codes) {
    if constexpr (Codes::kInOrder) return codes;
    const auto* table = reinterpret_cast<const __m128i*>(kPlaces<Codes>.of);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table)), codes);
}
inline __m256i four_of_row(const uint8_t* a) { return _mm256_set1_epi32(four(a)); }

template <class Codes>
struct DotCodes : CodeBlock<Codes> {
    using CodeBlock<Codes>::kScaleBytes;
    static constexpr int kMostRows = 8;
    template <int R>
    static inline void group(const uint8_t* block, const uint8_t* const* a, const int32_t* sum,
                             VecI* dot) {
        const __m256i mask = _mm256_set1_epi8(15);
        __m256i sums[R][2];
        for (int r = 0; r < R; r++) sums[r][0] = sums[r][1] = _mm256_set1_epi32(sum[r]);
        for (int j = 0; j < 4; j++) {
            for (int half = 0; half < 2; half++) {
                const __m256i q = load_half_line(block + kScaleBytes + 64 * j, half);
                const __m256i low = places<Codes>(_mm256_and_si256(q, mask));
                const __m256i high = places<Codes>(_mm256_and_si256(_mm256_srli_epi16(q, 4), mask));
                for (int r = 0; r < R; r++) {
                    __m256i& s = sums[r][half];
                    s = dot4(s, low, four_of_row(a[r] + 4 * j));
                    s = dot4(s, high, four_of_row(a[r] + 16 + 4 * j));
                }
            }
        }
        for (int r = 0; r < R; r++) dot[r] = {sums[r][0], sums[r][1]};
    }
};

struct DotQ8 : Q8Block {
    static constexpr int kMostRows = 4;
    template <int R>
    static inline void group(const uint8_t* block, const uint8_t* const* a, const int32_t* sum,
                             VecI* dot) {
        // One half of the outputs after the other: the sums of both would not fit the registers.
        __m256i first[R], second[R];
        half_of_outputs<R>(block, a, sum, 0, first);
        half_of_outputs<R>(block, a, sum, 1, second);
        for (int r = 0; r < R; r++) dot[r] = {first[r], second[r]};
    }

  private:
    template <int R>
    static inline void half_of_outputs(const uint8_t* block, const uint8_t* const* a,
                                       const int32_t* sum, int half, __m256i* dots) {
        __m256i high[R], low[R];
        for (int r = 0; r < R; r++) {
            high[r] = _mm256_setzero_si256();
            low[r] = _mm256_set1_epi32(sum[r]);
        }
        for (int j = 0; j < 8; j++) {
            const __m256i q = load_half_line(block + kScaleBytes + 64 * j, half);
            for (int r = 0; r < R; r++) {
                high[r] = dot4(high[r], q, four_of_row(a[r] + 4 * j));
                low[r] = dot4(low[r], q, four_of_row(a[r] + 32 + 4 * j));
            }
        }
        for (int r = 0; r < R; r++)
            dots[r] = _mm256_add_epi32(_mm256_slli_epi32(high[r], 8), low[r]);
    }
};

}  // namespace bw::BW_ISA_NAME
