// What the dots of every ISA variant share: the layout of a group in a panel (formats/packing.py).
//
// A variant's header in this folder defines, in the variant's namespace,
//   kWideIntegers how the integers of 8-bit weights' activations lie in their 64 bytes
//   corrects_pairs(format)
//                 whether the corrections for a format's zero point are two int16 in the place of
//                 their sum as an int32: those of the first two and of the last two in every four
//                 columns
//   DotQ8, DotCodes<Codes>
//                 of 8 bits, and of 4 bits that are codes (code_book.h): kBlock, the bytes of a
//                 group's weights, kScaleBytes, those of its scales, and kIntegers, those of its
//                 activations in a row; kMostRows, whose accumulators fit the registers;
//                 and group<R>, the exact dots of a group's 16 outputs with R rows: a[r] are the
//                 rows' integers, sum[r] their corrections (of codes: the integers' sum times
//                 minus the zero point)
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/code_book.h"
#include "kernels/kernels.h"

namespace bw::BW_ISA_NAME {

// Integers of 8-bit weights' activations: two int8 planes, 32 high bytes and then 32 low ones; 32
// int16; or these with the second and the third in every four changed over. All but the second come
// with -128 times their sum as correction.
enum class WideIntegers { planes, in_order, even_first };

// What the blocks of a format have in common. 16 scales are at their start, as f16 or, in 16 bytes,
// as exponents of two; then come lines of 64 bytes.
struct Q8Block {  // 8 lines: 16 outputs, 4 k
    static constexpr Format kFormat = Format::q8;
    static constexpr size_t kScaleBytes = 32, kBlock = kScaleBytes + 512;
    static constexpr size_t kIntegers = activation_integers(Format::q8);
};
template <class Codes>
struct CodeBlock {  // 4 lines: 16 outputs, 4 k and 16 + those 4 k
    static constexpr Format kFormat = Codes::kFormat;
    static constexpr size_t kScaleBytes = Codes::kScaleBytes, kBlock = kScaleBytes + 256;
    static constexpr size_t kIntegers = activation_integers(Codes::kFormat);
};

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
