// GGUF's blocks on AVX2 with AVX-VNNI.
#pragma once
#include "kernels/dot/avx2_bytes.h"
#include "kernels/dot/avx_vnni.h"

namespace bw::BW_ISA_NAME {

template <Format kFormat>
struct DotBlock {
    static constexpr BlockShape kShape = block_shape(kFormat);
    static constexpr int kMostRows = kShape.sub == kGroup ? 8 : 4;
    template <int R>
    static inline void group(const uint8_t* lines, const uint8_t* scales, const uint8_t* const* a,
                             const int32_t* const* sums, VecI* dot) {
        __m256i first[R], second[R];
        half_of_outputs<R>(lines, scales, a, sums, first);
        half_of_outputs<R>(lines + 32, scales + 8, a, sums, second);
        for (int r = 0; r < R; r++) dot[r] = {first[r], second[r]};
    }

  private:
    template <int R>
    static BW_INLINE void half_of_outputs(const uint8_t* lines, const uint8_t* scales,
                                          const uint8_t* const* a, const int32_t* const* sums,
                                          __m256i* dots) {
        constexpr int kSubs = kShape.group_subs(), kSteps = 8 / kSubs;
        unrolled<kSubs>([&](auto number) BW_UNROLLED {
            constexpr int kSub = decltype(number)::value;
            __m256i own[R];
            for (int r = 0; r < R; r++)
                own[r] =
                    kShape.zero_point ? _mm256_set1_epi32(sums[r][kSub]) : _mm256_setzero_si256();
            unrolled<kSteps>([&](auto step) BW_UNROLLED {
                constexpr int kAt = kSub * kSteps + decltype(step)::value;
                const __m256i q = places(block_codes<kFormat, kAt, HalfLines>(lines));
                for (int r = 0; r < R; r++) own[r] = dot4(own[r], q, four_of_row(a[r] + 4 * kAt));
            });
            for (int r = 0; r < R; r++) {
                const __m256i scaled = times(own[r], scales + kPanel * kSub);
                dots[r] = kSub == 0 ? scaled : _mm256_add_epi32(dots[r], scaled);
            }
        });
    }
    static BW_INLINE __m256i places(__m256i codes) {
        if constexpr (!kShape.book) return codes;
        const auto* table = reinterpret_cast<const __m128i*>(kIq4Places.of);
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table)), codes);
    }
    static BW_INLINE __m256i times(__m256i dots, const uint8_t* scales) {
        if constexpr (kShape.scales == BlockScales::none) return dots;
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales));
        if constexpr (kShape.scales == BlockScales::signed_bytes)
            return _mm256_mullo_epi32(dots, _mm256_cvtepi8_epi32(bytes));
        __m256i wide = _mm256_cvtepu8_epi32(bytes);
        if constexpr (kShape.scales == BlockScales::nibbles)
            wide = _mm256_and_si256(wide, _mm256_set1_epi32(15));
        return _mm256_mullo_epi32(dots, wide);
    }
};

}  // namespace bw::BW_ISA_NAME
