// Integer dots on AVX-512 VNNI: unsigned weights times signed activations, 4 k an instruction.
#pragma once
#include "kernels/dot/block.h"
#include "simd/vec16.h"

namespace bw::BW_ISA_NAME {

constexpr auto kWideIntegers = WideIntegers::planes;
constexpr BW_INLINE bool corrects_pairs(Format) { return false; }

// The places of 64 codes.
template <class Codes>
inline __m512i places(__m512i codes) {
    if constexpr (Codes::kInOrder) return codes;
    const auto* table = reinterpret_cast<const __m128i*>(kPlaces<Codes>.of);
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table)), codes);
}

template <class Codes>
struct DotCodes : CodeBlock<Codes> {
    using CodeBlock<Codes>::kScaleBytes;
    static constexpr int kMostRows = 8;
    // The places of the 16 outputs' 4 k a line: of the first 16 k, and of the others.
    static BW_INLINE void split(const uint8_t* block, __m512i* low, __m512i* high) {
        const __m512i mask = _mm512_set1_epi8(15);
        for (int j = 0; j < 4; j++) {
            const __m512i q = _mm512_loadu_si512(block + kScaleBytes + 64 * j);
            low[j] = places<Codes>(_mm512_and_si512(q, mask));
            high[j] = places<Codes>(_mm512_and_si512(_mm512_srli_epi16(q, 4), mask));
        }
    }
    template <int R>
    static inline void group(const uint8_t* block, const uint8_t* const* a, const int32_t* sum,
                             VecI* dot) {
        __m512i low[4], high[4];
        split(block, low, high);
        for (int r = 0; r < R; r++) {
            // Enough rows hide the latency of one chain; few need two.
            if (R >= 4) {
                __m512i s = _mm512_set1_epi32(sum[r]);
                for (int j = 0; j < 4; j++)
                    s = _mm512_dpbusd_epi32(s, low[j], _mm512_set1_epi32(four(a[r] + 4 * j)));
                for (int j = 0; j < 4; j++)
                    s = _mm512_dpbusd_epi32(s, high[j], _mm512_set1_epi32(four(a[r] + 16 + 4 * j)));
                dot[r] = {s};
                continue;
            }
            __m512i s0 = _mm512_set1_epi32(sum[r]), s1 = _mm512_setzero_si512();
            for (int j = 0; j < 4; j++) {
                s0 = _mm512_dpbusd_epi32(s0, low[j], _mm512_set1_epi32(four(a[r] + 4 * j)));
                s1 = _mm512_dpbusd_epi32(s1, high[j], _mm512_set1_epi32(four(a[r] + 16 + 4 * j)));
            }
            dot[r] = {_mm512_add_epi32(s0, s1)};
        }
    }
};

struct DotQ8 : Q8Block {
    static constexpr int kMostRows = 4;
    template <int R>
    static inline void group(const uint8_t* block, const uint8_t* const* a, const int32_t* sum,
                             VecI* dot) {
        __m512i high[R], low[R];
        for (int r = 0; r < R; r++) {
            high[r] = _mm512_setzero_si512();
            low[r] = _mm512_set1_epi32(sum[r]);
        }
        for (int j = 0; j < 8; j++) {
            __m512i q = _mm512_loadu_si512(block + kScaleBytes + 64 * j);
            for (int r = 0; r < R; r++) {
                high[r] = _mm512_dpbusd_epi32(high[r], q, _mm512_set1_epi32(four(a[r] + 4 * j)));
                low[r] = _mm512_dpbusd_epi32(low[r], q, _mm512_set1_epi32(four(a[r] + 32 + 4 * j)));
            }
        }
        for (int r = 0; r < R; r++)
            dot[r] = {_mm512_add_epi32(_mm512_slli_epi32(high[r], 8), low[r])};
    }
};

}  // namespace bw::BW_ISA_NAME
