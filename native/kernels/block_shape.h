// The formats that keep GGUF's blocks: what each consists of, and where it lies in a panel
// (formats/block_packing.py). A table of numbers, from which packers and kernels are made.
#pragma once
#include "kernels/formats.h"

namespace bw {

// The integer scales of a super-block: none in blocks of 32; bytes; or a scale and a minimum in the
// halves of one byte.
enum class BlockScales : int { none, unsigned_bytes, signed_bytes, nibbles };

struct BlockShape {
    int columns;     // of a block: 32, or 256 of a super-block
    int bits;        // of a code
    int zero_point;  // what is subtracted from a code; of a book, what makes its numbers unsigned
    bool book;       // codes stand for kIq4Values
    bool minima;
    int sub;  // columns that share an integer scale
    BlockScales scales;

    // Lines of 64 bytes of a group of 32 columns: of nibbles, of pairs of bits, of single bits.
    constexpr BW_INLINE int nibble_lines() const { return bits >= 4 ? 4 : 0; }
    constexpr BW_INLINE int pair_lines() const {
        return bits == 2 || bits == 3 || bits == 6 ? 2 : 0;
    }
    constexpr BW_INLINE int bit_lines() const { return bits == 3 || bits == 5 ? 1 : 0; }
    constexpr BW_INLINE size_t group_bytes() const {
        return size_t{64} * static_cast<size_t>(nibble_lines() + pair_lines() + bit_lines());
    }
    constexpr BW_INLINE int groups() const { return columns / kGroup; }
    constexpr BW_INLINE int group_subs() const { return kGroup / sub; }
    constexpr BW_INLINE int subs() const { return scales == BlockScales::none ? 0 : columns / sub; }
    // Where the parts of a panel's block begin: f16 scales come first.
    constexpr BW_INLINE size_t scales_at() const { return minima ? 64 : 32; }
    constexpr BW_INLINE size_t minima_at() const {
        return scales_at() + static_cast<size_t>(subs() * kPanel);
    }
    constexpr BW_INLINE size_t lines_at() const {
        const bool own = minima && scales != BlockScales::nibbles;
        return minima_at() + (own ? static_cast<size_t>(subs() * kPanel) : 0);
    }
    constexpr BW_INLINE size_t bytes() const {
        return lines_at() + group_bytes() * static_cast<size_t>(groups());
    }
};

constexpr BW_INLINE bool keeps_blocks(Format format) { return format >= Format::q4_1; }

constexpr BW_INLINE BlockShape block_shape(Format format) {
    constexpr auto none = BlockScales::none, bytes = BlockScales::unsigned_bytes,
                   with_sign = BlockScales::signed_bytes, nibbles = BlockScales::nibbles;
    switch (format) {
        case Format::q4_1:
            return {32, 4, 0, false, true, 32, none};
        case Format::q5_0:
            return {32, 5, 16, false, false, 32, none};
        case Format::q5_1:
            return {32, 5, 0, false, true, 32, none};
        case Format::iq4_nl:
            return {32, 4, 127, true, false, 32, none};
        case Format::q2_k:
            return {256, 2, 0, false, true, 16, nibbles};
        case Format::q3_k:
            return {256, 3, 4, false, false, 16, with_sign};
        case Format::q4_k:
            return {256, 4, 0, false, true, 32, bytes};
        case Format::q5_k:
            return {256, 5, 0, false, true, 32, bytes};
        case Format::q6_k:
            return {256, 6, 32, false, false, 16, with_sign};
        default:
            return {256, 4, 127, true, false, 32, with_sign};  // iq4_xs
    }
}

// Columns of the blocks that a format must not be cut in: 1 where it may be cut anywhere.
constexpr BW_INLINE int whole_columns(Format format) {
    return keeps_blocks(format) ? block_shape(format).columns : 1;
}

}  // namespace bw
