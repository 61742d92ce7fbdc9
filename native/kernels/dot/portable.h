// Integer dots in plain C++17.
#pragma once
#include "kernels/dot/block.h"
#include "simd/vec16.h"

namespace bw::BW_ISA_NAME {

constexpr auto kWideIntegers = WideIntegers::in_order;
constexpr BW_INLINE bool corrects_pairs(Format) { return false; }

template <class Codes>
struct DotCodes : CodeBlock<Codes> {
    using CodeBlock<Codes>::kScaleBytes;
    static constexpr int kMostRows = 8;
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
                        dot[r].v[n] += place(q & 15) * x[4 * j + b];
                        dot[r].v[n] += place(q >> 4) * x[16 + 4 * j + b];
                    }
        }
    }

  private:
    static inline int place(int code) { return Codes::kInOrder ? code : kPlaces<Codes>.of[code]; }
};

struct DotQ8 : Q8Block {
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

}  // namespace bw::BW_ISA_NAME
