// Where the codes of GGUF's blocks lie as they are stored: eight columns' at a time, as the bytes
// of a word, so that a packer needs no codes one by one. `group` counts 32 columns within a block,
// `at` is a multiple of eight within the group. gguf_blocks.h takes blocks apart code by code.
#pragma once
#include <cstring>

#include "kernels/formats.h"

namespace bw {

// The same bits in each byte of a word.
constexpr BW_INLINE uint64_t in_all_bytes(uint8_t bits) { return bits * 0x0101010101010101u; }

BW_INLINE uint64_t columns_at(const uint8_t* bytes) {
    uint64_t word;
    std::memcpy(&word, bytes, sizeof word);
    return word;
}

// Four bits, the lowest first, as the lowest bits of four bytes.
BW_INLINE uint32_t spread_bits(uint32_t bits) { return bits * 0x00204081u & 0x01010101u; }

// The lowest 4 bits of codes that have at least as many.
template <Source kSource>
BW_INLINE uint64_t stored_nibbles(const uint8_t* block, int group, int at) {
    constexpr uint64_t kMask = in_all_bytes(15);
    if constexpr (kSource == Source::q4_k || kSource == Source::q5_k) {
        const uint8_t* codes = block + (kSource == Source::q4_k ? 16 : 48);
        return columns_at(codes + 32 * (group / 2) + at) >> (4 * (group % 2)) & kMask;
    } else if constexpr (kSource == Source::q6_k) {
        const int half = group / 4, part = group % 4;
        return columns_at(block + 64 * half + 32 * (part % 2) + at) >> (4 * (part / 2)) & kMask;
    } else {  // of 16 bytes the low halves, then the high ones
        constexpr bool kFromEight = kSource == Source::iq4_xs || kSource == Source::q5_1;
        constexpr int kStart = kFromEight                 ? 8
                               : kSource == Source::q5_0  ? 6
                               : kSource == Source::q4_1  ? 4
                               : kSource == Source::mxfp4 ? 1
                                                          : 2;
        return columns_at(block + kStart + 16 * group + at % 16) >> (4 * (at / 16)) & kMask;
    }
}

// Two bits: codes of two or three bits begin with them, those of six end with them.
template <Source kSource>
BW_INLINE uint64_t stored_pairs(const uint8_t* block, int group, int at) {
    constexpr int kStart = kSource == Source::q6_k ? 128 : kSource == Source::q3_k ? 32 : 16;
    const int half = group / 4, part = group % 4;
    return columns_at(block + kStart + 32 * half + at) >> (2 * part) & in_all_bytes(3);
}

// The single bit above the others of codes of three or five bits.
template <Source kSource>
BW_INLINE uint64_t stored_bits(const uint8_t* block, int group, int at) {
    if constexpr (kSource == Source::q5_0 || kSource == Source::q5_1) {
        const uint32_t bits = block[(kSource == Source::q5_1 ? 4 : 2) + at / 8];
        return spread_bits(bits & 15) | static_cast<uint64_t>(spread_bits(bits >> 4)) << 32;
    } else {
        constexpr int kStart = kSource == Source::q5_k ? 16 : 0;
        return columns_at(block + kStart + at) >> group & in_all_bytes(1);
    }
}

}  // namespace bw
