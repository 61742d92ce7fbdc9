// Integer dots on 64-bit Arm, one text for three variants: plain NEON, NEON with the dot product
// instruction (SDOT), and with the 8-bit matrix product as well (i8mm: a pair of rows together).
#pragma once
#include "kernels/dot/block.h"
#include "simd/vec16.h"

namespace bw::BW_ISA_NAME {

constexpr auto kWideIntegers = WideIntegers::planes;
constexpr BW_INLINE bool corrects_pairs(Format) { return false; }

namespace neon_dot {

// acc[n] += the sum over b of w[4 n + b] * a[4 kLane + b]: four outputs, four k.
template <int kLane>
inline int32x4_t dot4(int32x4_t acc, int8x16_t w, int8x16_t a) {
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_laneq_s32(acc, w, a, kLane);
#else
    const int8x16_t same = vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(a), kLane));
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(same));
    const int16x8_t high = vmull_high_s8(w, same);
    return vaddq_s32(acc, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
#endif
}

// Four lines of weights with 16 k of one row.
inline int32x4_t dot16(int32x4_t acc, const int8x16_t* w, int8x16_t a) {
    acc = dot4<0>(acc, w[0], a);
    acc = dot4<1>(acc, w[1], a);
    acc = dot4<2>(acc, w[2], a);
    return dot4<3>(acc, w[3], a);
}

inline int8x16_t load_row(const uint8_t* a) { return vreinterpretq_s8_u8(vld1q_u8(a)); }

// The weights of four outputs, 16 * part bytes into each of the lines from `first` on.
inline void load_lines(const uint8_t* lines, int first, int part, uint8x16_t* q) {
    for (int j = 0; j < 4; j++) q[j] = vld1q_u8(lines + 64 * (first + j) + 16 * part);
}

// The places of 16 codes.
template <class Codes>
inline uint8x16_t places(uint8x16_t codes) {
    if constexpr (Codes::kInOrder) return codes;
    return vqtbl1q_u8(vld1q_u8(kPlaces<Codes>.of), codes);
}

inline void put(VecI& dot, int part, int32x4_t v) {
    (part == 0 ? dot.a : part == 1 ? dot.b : part == 2 ? dot.c : dot.d) = v;
}

#if defined(__ARM_FEATURE_MATMUL_INT8)

// Lines j and j + 1 as two matrices of two outputs by eight k.
inline void pair_lines(uint8x16_t even, uint8x16_t odd, uint8x16_t* w) {
    const uint32x4_t a = vreinterpretq_u32_u8(even), b = vreinterpretq_u32_u8(odd);
    w[0] = vreinterpretq_u8_u32(vzip1q_u32(a, b));
    w[1] = vreinterpretq_u8_u32(vzip2q_u32(a, b));
}

// Eight k of two rows.
inline int8x16_t pair_rows(const uint8_t* a, const uint8_t* b) {
    return vreinterpretq_s8_u8(vcombine_u8(vld1_u8(a), vld1_u8(b)));
}

// Two accumulators of 2 outputs by 2 rows hold four outputs' sums of two rows.
inline int32x4_t first_row(int32x4_t low, int32x4_t high) { return vuzp1q_s32(low, high); }
inline int32x4_t second_row(int32x4_t low, int32x4_t high) { return vuzp2q_s32(low, high); }

#endif

}  // namespace neon_dot

template <class Codes>
struct DotCodes : CodeBlock<Codes> {
    using CodeBlock<Codes>::kScaleBytes;
    static constexpr int kMostRows = 8;
    template <int R>
    static inline void group(const uint8_t* block, const uint8_t* const* a, const int32_t* sum,
                             VecI* dot) {
        using namespace neon_dot;
        const uint8x16_t mask = vdupq_n_u8(15);
        for (int part = 0; part < 4; part++) {
            uint8x16_t q[4], low[4], high[4];
            load_lines(block + kScaleBytes, 0, part, q);
            for (int j = 0; j < 4; j++) {
                low[j] = places<Codes>(vandq_u8(q[j], mask));
                high[j] = places<Codes>(vshrq_n_u8(q[j], 4));
            }
#if defined(__ARM_FEATURE_MATMUL_INT8)
            if constexpr (R % 2 == 0) {
                uint8x16_t w[4][2];
                for (int j = 0; j < 2; j++) {
                    pair_lines(low[2 * j], low[2 * j + 1], w[j]);
                    pair_lines(high[2 * j], high[2 * j + 1], w[2 + j]);
                }
                for (int r = 0; r < R; r += 2) {
                    int32x4_t s0 = vdupq_n_s32(0), s1 = s0;
                    for (int j = 0; j < 4; j++) {
                        const int8x16_t rows = pair_rows(a[r] + 8 * j, a[r + 1] + 8 * j);
                        s0 = vusmmlaq_s32(s0, w[j][0], rows);
                        s1 = vusmmlaq_s32(s1, w[j][1], rows);
                    }
                    put(dot[r], part, vaddq_s32(first_row(s0, s1), vdupq_n_s32(sum[r])));
                    put(dot[r + 1], part, vaddq_s32(second_row(s0, s1), vdupq_n_s32(sum[r + 1])));
                }
                continue;
            }
#endif
            static_assert(Codes::kMost < 128, "places are read as signed bytes");
            int8x16_t w[8];
            for (int j = 0; j < 4; j++) {
                w[j] = vreinterpretq_s8_u8(low[j]);
                w[4 + j] = vreinterpretq_s8_u8(high[j]);
            }
            for (int r = 0; r < R; r++) {
                const int32x4_t s0 = dot16(vdupq_n_s32(sum[r]), w, load_row(a[r]));
                const int32x4_t s1 = dot16(vdupq_n_s32(0), w + 4, load_row(a[r] + 16));
                put(dot[r], part, vaddq_s32(s0, s1));
            }
        }
    }
};

// Weights come as unsigned bytes, 128 too large; flipping the top bit makes them signed, so that
// the correction, which is for unsigned ones, is not needed but by the matrix product.
struct DotQ8 : Q8Block {
    static constexpr int kMostRows = 4;
    template <int R>
    static inline void group(const uint8_t* block, const uint8_t* const* a, const int32_t* sum,
                             VecI* dot) {
        using namespace neon_dot;
        const uint8x16_t flip = vdupq_n_u8(0x80);
        for (int part = 0; part < 4; part++) {
            uint8x16_t q[8];
            load_lines(block + kScaleBytes, 0, part, q);
            load_lines(block + kScaleBytes, 4, part, q + 4);
#if defined(__ARM_FEATURE_MATMUL_INT8)
            if constexpr (R % 2 == 0) {
                uint8x16_t w[4][2];
                for (int j = 0; j < 4; j++) pair_lines(q[2 * j], q[2 * j + 1], w[j]);
                for (int r = 0; r < R; r += 2) {
                    int32x4_t h0 = vdupq_n_s32(0), h1 = h0, l0 = h0, l1 = h0;
                    for (int j = 0; j < 4; j++) {
                        const uint8_t *x = a[r] + 8 * j, *y = a[r + 1] + 8 * j;
                        const int8x16_t high = pair_rows(x, y), low = pair_rows(x + 32, y + 32);
                        h0 = vusmmlaq_s32(h0, w[j][0], high);
                        h1 = vusmmlaq_s32(h1, w[j][1], high);
                        l0 = vusmmlaq_s32(l0, w[j][0], low);
                        l1 = vusmmlaq_s32(l1, w[j][1], low);
                    }
                    const int32x4_t x = vaddq_s32(first_row(l0, l1), vdupq_n_s32(sum[r]));
                    const int32x4_t y = vaddq_s32(second_row(l0, l1), vdupq_n_s32(sum[r + 1]));
                    put(dot[r], part, vaddq_s32(x, vshlq_n_s32(first_row(h0, h1), 8)));
                    put(dot[r + 1], part, vaddq_s32(y, vshlq_n_s32(second_row(h0, h1), 8)));
                }
                continue;
            }
#endif
            int8x16_t w[8];
            for (int j = 0; j < 8; j++) w[j] = vreinterpretq_s8_u8(veorq_u8(q[j], flip));
            for (int r = 0; r < R; r++) {
                int32x4_t high = dot16(vdupq_n_s32(0), w, load_row(a[r]));
                high = dot16(high, w + 4, load_row(a[r] + 16));
                int32x4_t low = dot16(vdupq_n_s32(0), w, load_row(a[r] + 32));
                low = dot16(low, w + 4, load_row(a[r] + 48));
                put(dot[r], part, vaddq_s32(vshlq_n_s32(high, 8), low));
            }
        }
        (void)sum;
    }
};

}  // namespace bw::BW_ISA_NAME
