// GGUF's blocks on AVX2 alone: pair sums in int16, times the integer scales where they widen.
#pragma once
#include "kernels/dot/avx2.h"
#include "kernels/dot/avx2_bytes.h"

namespace bw::BW_ISA_NAME {

// How the products of a format's pairs of columns are added up.
template <Format kFormat>
struct PairSums {
    static constexpr BlockShape kShape = block_shape(kFormat);
    // A zero point's corrections are added to the pair sums: what goes beyond an int16 on the way
    // comes back, so that only the weights proper say how many fit.
    static constexpr bool kZeros = corrects_pairs(kFormat);
    // A book's numbers meet activations as magnitudes, whose signs move to the activations.
    static constexpr int kMost = kShape.book ? 127 : (1 << kShape.bits) - 1;
    static constexpr int kLargest = kZeros ? kShape.zero_point : kMost;
    // So many pair sums fit an int16 together, of those that have a scale in common.
    static constexpr int kFit = 32767 / (2 * 127 * kLargest);
    static constexpr int kSubSteps = kShape.sub / 4;
    static constexpr int kSteps = kFit >= kSubSteps ? kSubSteps : kFit >= 4 ? 4 : kFit >= 2 ? 2 : 1;
    static_assert(2 * 127 * kMost <= 32767, "a pair sum fits");
    static_assert(!kZeros || (kSteps == kSubSteps && kMost <= 2 * kLargest), "so does their sum");

    // 8 outputs' scales, each twice as an int16; ones where there are none.
    template <int kHalf>
    static BW_INLINE __m256i scales(const uint8_t* scales) {
        if constexpr (kShape.scales == BlockScales::none) return _mm256_set1_epi16(1);
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
    static BW_INLINE __m256i book(__m256i codes) {
        const auto* table = reinterpret_cast<const __m128i*>(kIq4Values);
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table)), codes);
    }
    static BW_INLINE __m256i of(__m256i q, __m256i a) {
        if constexpr (!kShape.book) return _mm256_maddubs_epi16(q, a);
        const __m256i values = book(q);
        return _mm256_maddubs_epi16(_mm256_abs_epi8(values), _mm256_sign_epi8(a, values));
    }

  private:
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
};

// Of few rows: more come to their sums by way of avx2_unpacked.h.
template <Format kFormat>
struct DotBlock {
    using Pairs = PairSums<kFormat>;
    static constexpr int kMostRows = 2;

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
    template <int R, int kHalf>
    static BW_INLINE void half_of_outputs(const uint8_t* lines, const uint8_t* scales,
                                          const uint8_t* const* a, const int32_t* const* sums,
                                          __m256i* dots) {
        constexpr int kSubs = Pairs::kShape.group_subs(), kSteps = Pairs::kSteps;
        __m256i scale[kSubs];
        for (int i = 0; i < kSubs; i++)
            scale[i] = Pairs::template scales<kHalf>(scales + kPanel * i);
        unrolled<8 / kSteps>([&](auto chunk) BW_UNROLLED {
            constexpr int kFirst = decltype(chunk)::value * kSteps;
            constexpr int kSub = kFirst / Pairs::kSubSteps;
            __m256i pairs[R];
            for (int r = 0; Pairs::kZeros && r < R; r++)
                pairs[r] = _mm256_set1_epi32(sums[r][kSub]);
            unrolled<kSteps>([&](auto step) BW_UNROLLED {
                constexpr int kStep = decltype(step)::value, kAt = kFirst + kStep;
                const __m256i q = block_codes<kFormat, kAt, HalfLines>(lines + 32 * kHalf);
                for (int r = 0; r < R; r++) {
                    const __m256i sum = Pairs::of(q, _mm256_set1_epi32(four(a[r] + 4 * kAt)));
                    const bool first = !Pairs::kZeros && kStep == 0;
                    pairs[r] = first ? sum : _mm256_add_epi16(pairs[r], sum);
                }
            });
            for (int r = 0; r < R; r++) {
                const __m256i sum = _mm256_madd_epi16(pairs[r], scale[kSub]);
                dots[r] = kFirst == 0 ? sum : _mm256_add_epi32(dots[r], sum);
            }
        });
    }
};

}  // namespace bw::BW_ISA_NAME
