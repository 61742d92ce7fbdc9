// Where the codes of GGUF's blocks lie as they are stored: four columns' at a time, as the bytes of
// a word, so that a packer needs no codes one by one. `group` counts 32 columns within a block, `at`
// is a multiple of four within the group. gguf_blocks.h takes blocks apart code by code.
#pragma once
#include <cstring>

#include "kernels/formats.h"

namespace bw {

BW_INLINE uint32_t word_at(const uint8_t* bytes) {
    uint32_t word;
    std::memcpy(&word, bytes, sizeof word);
    return word;
}

// Four bits, the lowest first, as the lowest bits of four bytes.
BW_INLINE uint32_t spread_bits(uint32_t bits) { return bits * 0x00204081u & 0x01010101u; }

// The lowest 4 bits of codes that have at least as many.
template <Source kSource>
BW_INLINE uint32_t stored_nibbles(const uint8_t* block, int group, int at) {
    constexpr uint32_t kMask = 0x0f0f0f0fu;
    constexpr bool kSixBits = kSource == Source::q6_k;
    if constexpr (kSource == Source::q4_k || kSource == Source::q5_k) {
        const uint8_t* codes = block + (kSource == Source::q4_k ? 16 : 48);
        return word_at(codes + 32 * (group / 2) + at) >> (4 * (group % 2)) & kMask;
    } else if constexpr (kSixBits) {
        const int half = group / 4, part = group % 4;
        return word_at(block + 64 * half + 32 * (part % 2) + at) >> (4 * (part / 2)) & kMask;
    } else {  // of 16 bytes the low halves, then the high ones
        constexpr int kStart = kSource == Source::iq4_xs                              ? 8
                               : kSource == Source::q5_1                              ? 8
                               : kSource == Source::q5_0                              ? 6
                               : kSource == Source::q4_1                              ? 4
                                                                                      : 2;
        return word_at(block + kStart + 16 * group + at % 16) >> (4 * (at / 16)) & kMask;
    }
}

// Two bits: codes of two or three bits begin with them, those of six end with them.
template <Source kSource>
BW_INLINE uint32_t stored_pairs(const uint8_t* block, int group, int at) {
    constexpr int kStart = kSource == Source::q6_k ? 128 : kSource == Source::q3_k ? 32 : 16;
    const int half = group / 4, part = group % 4;
    return word_at(block + kStart + 32 * half + at) >> (2 * part) & 0x03030303u;
}

// The single bit above the others of codes of three or five bits.
template <Source kSource>
BW_INLINE uint32_t stored_bits(const uint8_t* block, int group, int at) {
    if constexpr (kSource == Source::q5_0 || kSource == Source::q5_1) {
        return spread_bits(word_at(block + (kSource == Source::q5_1 ? 4 : 2)) >> at & 15u);
    } else {
        constexpr int kStart = kSource == Source::q5_k ? 16 : 0;
        return word_at(block + kStart + at) >> group & 0x01010101u;
    }
}

}  // namespace bw
