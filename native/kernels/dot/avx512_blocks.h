// GGUF's blocks on AVX-512 VNNI.
#pragma once
#include "kernels/dot/avx512.h"
#include "kernels/dot/block_codes.h"

namespace bw::BW_ISA_NAME {

struct WholeLines {
    static BW_INLINE __m512i load(const uint8_t* p) { return _mm512_loadu_si512(p); }
    static BW_INLINE __m512i either(__m512i x, __m512i y) { return _mm512_or_si512(x, y); }
    template <int kFrom, int kTo, int kMask>
    static BW_INLINE __m512i field(__m512i x) {
        if constexpr (kFrom > kTo) x = _mm512_srli_epi16(x, kFrom - kTo);
        if constexpr (kFrom < kTo) x = _mm512_slli_epi16(x, kTo - kFrom);
        return _mm512_and_si512(x, _mm512_set1_epi8(kMask));
    }
};

template <Format kFormat>
struct DotBlock {
    static constexpr BlockShape kShape = block_shape(kFormat);
    static constexpr int kMostRows = 8;
    template <int R>
    static inline void group(const uint8_t* lines, const uint8_t* scales, const uint8_t* const* a,
                             const int32_t* const* sums, VecI* dot) {
        // Two chains, of 16 columns each: where these have scales of their own, they need no other.
        __m512i chains[2][R];
        unrolled<2>([&](auto number) BW_UNROLLED {
            constexpr int kHalf = decltype(number)::value;
            constexpr bool kOwnSum = kHalf < kShape.group_subs();
            for (int r = 0; r < R; r++)
                chains[kHalf][r] = kShape.zero_point && kOwnSum
                                       ? _mm512_set1_epi32(sums[r][kOwnSum ? kHalf : 0])
                                       : _mm512_setzero_si512();
            unrolled<4>([&](auto step) BW_UNROLLED {
                constexpr int kAt = 4 * kHalf + decltype(step)::value;
                const __m512i q = places_of(block_codes<kFormat, kAt, WholeLines>(lines));
                for (int r = 0; r < R; r++)
                    chains[kHalf][r] = _mm512_dpbusd_epi32(chains[kHalf][r], q,
                                                           _mm512_set1_epi32(four(a[r] + 4 * kAt)));
            });
        });
        for (int r = 0; r < R; r++) {
            if constexpr (kShape.group_subs() == 1)
                dot[r] = {times(_mm512_add_epi32(chains[0][r], chains[1][r]), scales)};
            else
                dot[r] = {_mm512_add_epi32(times(chains[0][r], scales),
                                           times(chains[1][r], scales + kPanel))};
        }
    }

  private:
    static BW_INLINE __m512i places_of(__m512i codes) {
        if constexpr (!kShape.book) return codes;
        const auto* table = reinterpret_cast<const __m128i*>(kIq4Places.of);
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table)), codes);
    }
    static BW_INLINE __m512i times(__m512i dots, const uint8_t* scales) {
        if constexpr (kShape.scales == BlockScales::none) return dots;
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales));
        if constexpr (kShape.scales == BlockScales::signed_bytes)
            return _mm512_mullo_epi32(dots, _mm512_cvtepi8_epi32(bytes));
        __m512i wide = _mm512_cvtepu8_epi32(bytes);
        if constexpr (kShape.scales == BlockScales::nibbles)
            wide = _mm512_and_si512(wide, _mm512_set1_epi32(15));
        return _mm512_mullo_epi32(dots, wide);
    }
};

}  // namespace bw::BW_ISA_NAME
