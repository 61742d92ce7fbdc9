// How every ISA variant takes the codes of GGUF's blocks out of a group's lines
// (formats/block_packing.py).
//
// A variant's own header defines DotBlock<Format> in its namespace: kMostRows, and group<R>, the
// exact integers of a group's 16 outputs with R rows. `lines` are the group's, `scales` its integer
// scales, 16 bytes for each run of columns that has some; a[r] are a row's integers and sums[r]
// what activation_sums says.
#pragma once
#include <cstdint>
#include <utility>

#include "kernels/block_shape.h"
#include "kernels/code_book.h"

namespace bw::BW_ISA_NAME {

// Calls f with the numbers from 0 up to kCount, as types whose `value` is known when compiling.
template <int... kNumbers, class F>
BW_INLINE void for_numbers(std::integer_sequence<int, kNumbers...>, F f) {
    (f(std::integral_constant<int, kNumbers>{}), ...);
}
template <int kCount, class F>
BW_INLINE void unrolled(F f) {
    for_numbers(std::make_integer_sequence<int, kCount>{}, f);
}
#define BW_UNROLLED __attribute__((always_inline))

// The codes of elements 4 kAt up to 4 kAt + 4 of a group, of as many outputs as a vector of Ops
// holds; `lines` begins at the first of them. Ops loads bytes, and its field<kFrom, kTo, kMask>
// moves bit kFrom of each byte to bit kTo and keeps the bits of the mask there.
template <Format kFormat, int kAt, class Ops>
BW_INLINE auto block_codes(const uint8_t* lines) {
    constexpr BlockShape kShape = block_shape(kFormat);
    constexpr int kLine = kAt % 4, kHalf = kAt / 4;
    constexpr int kPairsAt = kShape.nibble_lines(), kBitsAt = kPairsAt + kShape.pair_lines();
    constexpr int kPairsTo = kPairsAt > 0 ? 4 : 0, kBitTo = kShape.bits - 1;
    constexpr int kPair = 4 * (kLine % 2) + 2 * kHalf, kBit = 2 * kLine + kHalf;
    if constexpr (kShape.nibble_lines() > 0) {
        const auto nibble = Ops::template field<4 * kHalf, 0, 15>(Ops::load(lines + 64 * kLine));
        if constexpr (kShape.bits == 4) return nibble;
        if constexpr (kShape.bits == 5) {
            const auto bits = Ops::load(lines + 64 * kBitsAt);
            return Ops::either(nibble, Ops::template field<kBit, kBitTo, 1 << kBitTo>(bits));
        }
        if constexpr (kShape.bits == 6) {
            const auto pairs = Ops::load(lines + 64 * (kPairsAt + kLine / 2));
            return Ops::either(nibble, Ops::template field<kPair, kPairsTo, 3 << kPairsTo>(pairs));
        }
    } else {
        const auto pair =
            Ops::template field<kPair, kPairsTo, 3>(Ops::load(lines + 64 * (kPairsAt + kLine / 2)));
        if constexpr (kShape.bits == 2) return pair;
        if constexpr (kShape.bits == 3) {
            const auto bits = Ops::load(lines + 64 * kBitsAt);
            return Ops::either(pair, Ops::template field<kBit, kBitTo, 1 << kBitTo>(bits));
        }
    }
}

}  // namespace bw::BW_ISA_NAME
