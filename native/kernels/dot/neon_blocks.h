// GGUF's blocks on 64-bit Arm's NEON: weights as signed bytes, so that no sums need correcting.
#pragma once
#include "kernels/dot/block_codes.h"
#include "kernels/dot/neon.h"

namespace bw::BW_ISA_NAME {

struct QuarterLines {
    static BW_INLINE uint8x16_t load(const uint8_t* p) { return vld1q_u8(p); }
    static BW_INLINE uint8x16_t either(uint8x16_t x, uint8x16_t y) { return vorrq_u8(x, y); }
    template <int kFrom, int kTo, int kMask>
    static BW_INLINE uint8x16_t field(uint8x16_t x) {
        if constexpr (kFrom > kTo) x = vshrq_n_u8(x, kFrom - kTo);
        if constexpr (kFrom < kTo) x = vshlq_n_u8(x, kTo - kFrom);
        return vandq_u8(x, vdupq_n_u8(kMask));
    }
};

template <Format kFormat>
struct DotBlock {
    static constexpr BlockShape kShape = block_shape(kFormat);
    static constexpr int kMostRows = 4;
    template <int R>
    static inline void group(const uint8_t* lines, const uint8_t* scales, const uint8_t* const* a,
                             const int32_t* const*, VecI* dot) {
        for (int part = 0; part < 4; part++) {
            int8x16_t w[8];
            unrolled<8>([&](auto at) BW_UNROLLED {
                constexpr int kAt = decltype(at)::value;
                w[kAt] = values(block_codes<kFormat, kAt, QuarterLines>(lines + 16 * part));
            });
            int32x4_t first[R], second[R];
            dots<R>(w, a, first);
            dots<R>(w + 4, a, second, 16);
            for (int r = 0; r < R; r++) {
                if constexpr (kShape.scales == BlockScales::none) {
                    neon_dot::put(dot[r], part, vaddq_s32(first[r], second[r]));
                    continue;
                }
                const int32x4_t scale = wide(scales + 4 * part);
                if constexpr (kShape.group_subs() == 1)
                    neon_dot::put(dot[r], part, vmulq_s32(vaddq_s32(first[r], second[r]), scale));
                else
                    neon_dot::put(dot[r], part,
                                  vmlaq_s32(vmulq_s32(first[r], scale), second[r],
                                            wide(scales + kPanel + 4 * part)));
            }
        }
    }

  private:
    static BW_INLINE int8x16_t values(uint8x16_t codes) {
        if constexpr (kShape.book) return vqtbl1q_s8(vld1q_s8(kIq4Values), codes);
        return vreinterpretq_s8_u8(vsubq_u8(codes, vdupq_n_u8(kShape.zero_point)));
    }
    // 16 columns of R rows, from column `from` on.
    template <int R>
    static BW_INLINE void dots(const int8x16_t* w, const uint8_t* const* a, int32x4_t* out,
                               int from = 0) {
        using namespace neon_dot;
#if defined(__ARM_FEATURE_MATMUL_INT8)
        if constexpr (R % 2 == 0) {
            uint8x16_t pairs[2][2];
            for (int j = 0; j < 2; j++)
                pair_lines(vreinterpretq_u8_s8(w[2 * j]), vreinterpretq_u8_s8(w[2 * j + 1]),
                           pairs[j]);
            for (int r = 0; r < R; r += 2) {
                int32x4_t low = vdupq_n_s32(0), high = low;
                for (int j = 0; j < 2; j++) {
                    const int8x16_t rows = pair_rows(a[r] + from + 8 * j, a[r + 1] + from + 8 * j);
                    low = vmmlaq_s32(low, vreinterpretq_s8_u8(pairs[j][0]), rows);
                    high = vmmlaq_s32(high, vreinterpretq_s8_u8(pairs[j][1]), rows);
                }
                out[r] = first_row(low, high);
                out[r + 1] = second_row(low, high);
            }
            return;
        }
#endif
        for (int r = 0; r < R; r++) out[r] = dot16(vdupq_n_s32(0), w, load_row(a[r] + from));
    }
    // Four outputs' scales.
    static BW_INLINE int32x4_t wide(const uint8_t* scales) {
        uint32_t word;
        __builtin_memcpy(&word, scales, sizeof word);
        const uint8x8_t bytes = vreinterpret_u8_u32(vdup_n_u32(word));
        if constexpr (kShape.scales == BlockScales::signed_bytes)
            return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(bytes))));
        const uint8x8_t own =
            kShape.scales == BlockScales::nibbles ? vand_u8(bytes, vdup_n_u8(15)) : bytes;
        return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(own))));
    }
};

}  // namespace bw::BW_ISA_NAME
