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

template <Format kFormat>
struct DotBlock {
    static constexpr BlockShape kShape = block_shape(kFormat);
    static constexpr int kMostRows = 4;
    template <int R>
    static inline void group(const uint8_t* lines, const uint8_t* scales, const uint8_t* const* a,
                             const int32_t* const*, VecI* dot) {
        for (int r = 0; r < R; r++) dot[r] = izero();
        unrolled<8>([&](auto at) {
            constexpr int kAt = decltype(at)::value;
            for (int n = 0; n < kPanel; n++) {
                const int scale = scale_of(scales + kPanel * (4 * kAt / kShape.sub) + n);
                for (int b = 0; b < 4; b++) {
                    const int code = block_codes<kFormat, kAt, OneByte>(lines + 4 * n + b);
                    const int weight = scale * value(code);
                    for (int r = 0; r < R; r++)
                        dot[r].v[n] += weight * reinterpret_cast<const int8_t*>(a[r])[4 * kAt + b];
                }
            }
        });
    }

  private:
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
