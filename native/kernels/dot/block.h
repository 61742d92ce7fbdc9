// What the dots of every ISA variant share: the layout of a group in a panel (formats/packing.py).
//
// A variant's header in this folder defines, in the variant's namespace,
//   kBytePlanes   how the integers of 8-bit weights' activations lie in their 64 bytes: as two int8
//                 planes (32 high bytes, 32 low ones), with -128 times their sum as correction; or
//                 as 32 int16
//   DotQ4, DotQ8  kBlock, the bytes of a group's weights, and kIntegers, those of its activations
//                 in a row; kMostRows, whose accumulators fit the registers;
//                 and group<R>, the exact dots of a group's 16 outputs with R rows: a[r] are the
//                 rows' integers, sum[r] their corrections (q4: -8 times the integers' sum, for
//                 the weights' zero point)
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"

namespace bw::BW_ISA_NAME {

constexpr size_t kScaleBytes = 32;     // 16 scales as f16, at the start of a group
constexpr size_t kQ4Block = 32 + 256;  // 4 lines of 64 bytes: 16 outputs, 4 k and 16 + those 4 k
constexpr size_t kQ8Block = 32 + 512;  // 8 lines of 64 bytes: 16 outputs, 4 k

// Hints alone: beyond the panels' end they do no harm.
template <size_t kBytes>
BW_INLINE void fetch(const uint8_t* at) {
    for (size_t line = 0; line < kBytes; line += 64) __builtin_prefetch(at + line);
}

inline int32_t four(const uint8_t* p) {
    int32_t word;
    __builtin_memcpy(&word, p, sizeof word);
    return word;
}

}  // namespace bw::BW_ISA_NAME
