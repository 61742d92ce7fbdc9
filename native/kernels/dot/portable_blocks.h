// GGUF's blocks in plain C++17.
#pragma once
#include "kernels/dot/block_codes.h"
#include "kernels/dot/portable.h"

namespace bw::BW_ISA_NAME {

struct OneByte {
    static inline int load(const uint8_t* p) { return *p; }
    static inline int either(int x, int y) { return x | y; }
    template <int kFrom, int kTo, int kMask>
    static inline int field(int x) {
        return (kFrom > kTo ? x >> (kFrom - kTo) : x << (kTo - kFrom)) & kMask;
    }
};

// One row at a time: this file is compiled for every machine and chosen on few.
template <Format kFormat>
struct DotBlock {
    static constexpr BlockShape kShape = block_shape(kFormat);
    static constexpr int kMostRows = 1;
    template <int R>
    static inline void group(const uint8_t* lines, const uint8_t* scales, const uint8_t* const* a,
                             const int32_t* const*, VecI* dot) {
        static_assert(R == 1, "rows come one by one");
        int16_t weights[kGroup][kPanel];  // times their integer scales
        unpack(lines, scales, weights);
        const auto* x = reinterpret_cast<const int8_t*>(a[0]);
        dot[0] = izero();
        for (int i = 0; i < kGroup; i++)
            for (int n = 0; n < kPanel; n++) dot[0].v[n] += weights[i][n] * x[i];
    }

  private:
    static __attribute__((noinline)) void unpack(const uint8_t* lines, const uint8_t* scales,
                                                 int16_t (*weights)[kPanel]) {
        unrolled<8>([&](auto at) {
            constexpr int kAt = decltype(at)::value;
            for (int n = 0; n < kPanel; n++) {
                const int scale = scale_of(scales + kPanel * (4 * kAt / kShape.sub) + n);
                for (int b = 0; b < 4; b++) {
                    const int code = block_codes<kFormat, kAt, OneByte>(lines + 4 * n + b);
                    weights[4 * kAt + b][n] = static_cast<int16_t>(scale * value(code));
                }
            }
        });
    }
    static inline int value(int code) {
        return kShape.book ? kIq4Values[code] : code - kShape.zero_point;
    }
    static inline int scale_of(const uint8_t* scale) {
        if constexpr (kShape.scales == BlockScales::none) return 1;
        if constexpr (kShape.scales == BlockScales::signed_bytes)
            return static_cast<int8_t>(*scale);
        return kShape.scales == BlockScales::nibbles ? *scale & 15 : *scale;
    }
};

}  // namespace bw::BW_ISA_NAME
