// Bytes of half a line, as block_codes takes them apart, for both variants of 256 bits.
#pragma once
#include <immintrin.h>

#include "kernels/dot/block_codes.h"

namespace bw::BW_ISA_NAME {

struct HalfLines {
    static BW_INLINE __m256i load(const uint8_t* p) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    }
    static BW_INLINE __m256i either(__m256i x, __m256i y) { return _mm256_or_si256(x, y); }
    template <int kFrom, int kTo, int kMask>
    static BW_INLINE __m256i field(__m256i x) {
        if constexpr (kFrom > kTo) x = _mm256_srli_epi16(x, kFrom - kTo);
        if constexpr (kFrom < kTo) x = _mm256_slli_epi16(x, kTo - kFrom);
        return _mm256_and_si256(x, _mm256_set1_epi8(kMask));
    }
};

}  // namespace bw::BW_ISA_NAME
