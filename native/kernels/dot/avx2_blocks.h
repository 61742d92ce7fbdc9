// GGUF's blocks on AVX2 alone: pair sums in int16, times the integer scales where they widen.
#pragma once
#include "kernels/dot/avx2.h"
#include "kernels/dot/avx2_bytes.h"

namespace bw::BW_ISA_NAME {

template <Format kFormat>
struct DotBlock {
    static constexpr BlockShape kShape = block_shape(kFormat);
    static constexpr bool kScaled = kShape.scales != BlockScales::none;
    // A book's numbers meet activations as magnitudes, whose signs move to the activations.
    static constexpr int kMost = kShape.book ? 127 : (1 << kShape.bits) - 1;
    // So many pair sums fit an int16 together, of those that have a scale in common.
    static constexpr int kFit = 32767 / (2 * 127 * kMost);
    static constexpr int kSubSteps = kShape.sub / 4;
    static constexpr int kSteps = kFit >= kSubSteps ? kSubSteps : kFit >= 4 ? 4 : kFit >= 2 ? 2 : 1;
    static constexpr int kMostRows = kSteps == 8 ? 8 : 4;

    template <int R>
    static inline void group(const uint8_t* lines, const uint8_t* scales, const uint8_t* const* a,
                             const int32_t* const* sums, VecI* dot) {
        // One half of the outputs after the other.
        __m256i first[R], second[R];
        half_of_outputs<R, 0>(lines, scales, a, sums, first);
        half_of_outputs<R, 1>(lines, scales, a, sums, second);
        for (int r = 0; r < R; r++) dot[r] = {first[r], second[r]};
    }

  private:
    // 8 outputs' scales, each twice as an int16; ones where there are none.
    template <int kHalf>
    static BW_INLINE __m256i pairs_of_scales(const uint8_t* scales) {
        if constexpr (!kScaled) return _mm256_set1_epi16(1);
        constexpr bool kSigned = kShape.scales == BlockScales::signed_bytes;
        // Bytes to be signed come to the upper half of each int16.
        const __m256i bytes = _mm256_shuffle_epi8(
            _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales))),
            kSigned ? twice<kHalf, 1>() : twice<kHalf, 0>());
        if constexpr (kSigned) return _mm256_srai_epi16(bytes, 8);
        if constexpr (kShape.scales == BlockScales::nibbles)
            return _mm256_and_si256(bytes, _mm256_set1_epi16(15));
        return bytes;
    }
    // A shuffle that puts byte n of 8, from 8 kHalf on, twice into int16s, as their byte kByte.
    template <int kHalf, int kByte>
    static BW_INLINE __m256i twice() {
        constexpr int kLow = kByte == 0 ? 0 : 8, kHigh = 8 - kLow;  // shifts
        constexpr int kNone = 0x80 << kHigh;
        constexpr auto word = [](int n) constexpr {
            const int one = kNone | (8 * kHalf + n) << kLow;
            return static_cast<int>(static_cast<unsigned>(one) | static_cast<unsigned>(one) << 16);
        };
        return _mm256_setr_epi32(word(0), word(1), word(2), word(3), word(4), word(5), word(6),
                                 word(7));
    }
    template <int R, int kHalf>
    static BW_INLINE void half_of_outputs(const uint8_t* lines, const uint8_t* scales,
                                          const uint8_t* const* a, const int32_t* const* sums,
                                          __m256i* dots) {
        constexpr int kSubs = kShape.group_subs();
        __m256i scale[kSubs];
        for (int i = 0; i < kSubs; i++) scale[i] = pairs_of_scales<kHalf>(scales + kPanel * i);
        unrolled<8 / kSteps>([&](auto chunk) BW_UNROLLED {
            constexpr int kFirst = decltype(chunk)::value * kSteps, kSub = kFirst / kSubSteps;
            __m256i pairs[R];
            unrolled<kSteps>([&](auto step) BW_UNROLLED {
                constexpr int kStep = decltype(step)::value, kAt = kFirst + kStep;
                const __m256i q = block_codes<kFormat, kAt, HalfLines>(lines + 32 * kHalf);
                for (int r = 0; r < R; r++) {
                    const __m256i sum = pair_sums(q, _mm256_set1_epi32(four(a[r] + 4 * kAt)));
                    pairs[r] = kStep == 0 ? sum : _mm256_add_epi16(pairs[r], sum);
                }
            });
            for (int r = 0; r < R; r++) {
                const __m256i sum = _mm256_madd_epi16(pairs[r], scale[kSub]);
                dots[r] = kFirst == 0 ? sum : _mm256_add_epi32(dots[r], sum);
            }
        });
        if constexpr (kShape.zero_point != 0 && !kShape.book)
            for (int r = 0; r < R; r++)
                dots[r] = _mm256_add_epi32(dots[r], zeros<kSubs>(scale, sums[r]));
    }
    static BW_INLINE __m256i pair_sums(__m256i q, __m256i a) {
        if constexpr (!kShape.book) return _mm256_maddubs_epi16(q, a);
        const auto* table = reinterpret_cast<const __m128i*>(kIq4Values);
        const __m256i values =
            _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table)), q);
        return _mm256_maddubs_epi16(_mm256_abs_epi8(values), _mm256_sign_epi8(a, values));
    }
    // What the weights' zero point adds. Sums of 16 integers, at most 32512 for half a zero point
    // of 16, go the way of the pair sums.
    template <int kSubs>
    static BW_INLINE __m256i zeros(const __m256i* scale, const int32_t* sums) {
        if constexpr (!kScaled) return _mm256_set1_epi32(sums[0]);
        static_assert(!kScaled || kShape.zero_point / 2 * 16 * 127 < 32768, "halves fit an int16");
        __m256i total = _mm256_setzero_si256();
        for (int i = 0; i < kSubs; i++) {
            const __m256i of_all = _mm256_set1_epi16(static_cast<int16_t>(sums[i] / 2));
            total = _mm256_add_epi32(total, _mm256_madd_epi16(scale[i], of_all));
        }
        return total;
    }
};

}  // namespace bw::BW_ISA_NAME
