// Exact integer dot products of one group of a weight panel with R rows: the only arithmetic that
// is written per ISA, since integers can't differ. Panel layouts are those of formats/packing.py.
#pragma once
#include "kernels/kernels.h"
#include "simd/vec16.h"

namespace bw::BW_ISA_NAME {

constexpr size_t kScaleBytes = 32;

inline int32_t four(const uint8_t* p) {
    int32_t word;
    __builtin_memcpy(&word, p, sizeof word);
    return word;
}

#if defined(BW_ISA_AVX512)

struct DotQ4 {
    static constexpr size_t kBlock = 288;
    static constexpr int kMostRows = 8;  // whose accumulators fit the registers
    template <int R>
    static inline void group(const uint8_t* block, const uint8_t* const* a, const int32_t* sum,
                             VecI* dot) {
        const __m512i mask = _mm512_set1_epi8(15);
        __m512i low[4], high[4];
        for (int j = 0; j < 4; j++) {
            __m512i q = _mm512_loadu_si512(block + kScaleBytes + 64 * j);
            low[j] = _mm512_and_si512(q, mask);
            high[j] = _mm512_and_si512(_mm512_srli_epi16(q, 4), mask);
        }
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

struct DotQ8 {
    static constexpr size_t kBlock = 544;
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

#elif defined(BW_ISA_AVX2)

struct DotQ4 {
    static constexpr size_t kBlock = 288;
    static constexpr int kMostRows = 8;  // whose accumulators fit the registers
    template <int R>
    static inline void group(const uint8_t* block, const uint8_t* const* a, const int32_t* sum,
                             VecI* dot) {
        const __m256i mask = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
        // Eight pair sums of at most 15 * 127 * 2 fit int16.
        __m256i pairs[R][2];
        for (int r = 0; r < R; r++) pairs[r][0] = pairs[r][1] = _mm256_setzero_si256();
        for (int j = 0; j < 4; j++) {
            for (int half = 0; half < 2; half++) {
                __m256i q = _mm256_loadu_si256(
                    reinterpret_cast<const __m256i*>(block + kScaleBytes + 64 * j + 32 * half));
                __m256i low = _mm256_and_si256(q, mask);
                __m256i high = _mm256_and_si256(_mm256_srli_epi16(q, 4), mask);
                for (int r = 0; r < R; r++) {
                    __m256i al = _mm256_set1_epi32(four(a[r] + 4 * j));
                    __m256i ah = _mm256_set1_epi32(four(a[r] + 16 + 4 * j));
                    __m256i both = _mm256_add_epi16(_mm256_maddubs_epi16(low, al),
                                                    _mm256_maddubs_epi16(high, ah));
                    pairs[r][half] = _mm256_add_epi16(pairs[r][half], both);
                }
            }
        }
        for (int r = 0; r < R; r++) {
            __m256i s = _mm256_set1_epi32(sum[r]);
            dot[r] = {_mm256_add_epi32(s, _mm256_madd_epi16(pairs[r][0], ones)),
                      _mm256_add_epi32(s, _mm256_madd_epi16(pairs[r][1], ones))};
        }
    }
};

struct DotQ8 {
    static constexpr size_t kBlock = 544;
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

#else

struct DotQ4 {
    static constexpr size_t kBlock = 288;
    static constexpr int kMostRows = 8;  // whose accumulators fit the registers
    template <int R>
    static inline void group(const uint8_t* block, const uint8_t* const* a, const int32_t* sum,
                             VecI* dot) {
        for (int r = 0; r < R; r++) {
            const auto* x = reinterpret_cast<const int8_t*>(a[r]);
            dot[r] = iset1(sum[r]);
            for (int j = 0; j < 4; j++)
                for (int n = 0; n < 16; n++)
                    for (int b = 0; b < 4; b++) {
                        int q = block[kScaleBytes + 64 * j + 4 * n + b];
                        dot[r].v[n] += (q & 15) * x[4 * j + b] + (q >> 4) * x[16 + 4 * j + b];
                    }
        }
    }
};

struct DotQ8 {
    static constexpr size_t kBlock = 544;
    static constexpr int kMostRows = 4;
    template <int R>
    static inline void group(const uint8_t* block, const uint8_t* const* a, const int32_t*,
                             VecI* dot) {
        for (int r = 0; r < R; r++) {
            const auto* x = reinterpret_cast<const int16_t*>(a[r]);
            dot[r] = izero();
            for (int j = 0; j < 8; j++)
                for (int n = 0; n < 16; n++)
                    for (int b = 0; b < 4; b++)
                        dot[r].v[n] +=
                            (block[kScaleBytes + 64 * j + 4 * n + b] - 128) * x[4 * j + b];
        }
    }
};

#endif

}  // namespace bw::BW_ISA_NAME
