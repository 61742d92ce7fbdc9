// Super-blocks of 256 weights, taken apart.
#include <cstring>

#include "core/clones.h"
#include "kernels/gguf_blocks.h"

namespace bw {

namespace {

uint16_t half_at(const uint8_t* bytes) {
    uint16_t half;
    std::memcpy(&half, bytes, sizeof half);
    return half;
}

// The low halves of `count` bytes, then the high ones.
BW_CLONES void nibbles(const uint8_t* bytes, int count, uint8_t* codes) {
    for (int i = 0; i < count; i++) codes[i] = bytes[i] & 15;
    for (int i = 0; i < count; i++) codes[count + i] = bytes[i] >> 4;
}

// Two bits each: of either half's 32 bytes first the lowest ones.
BW_CLONES void pairs(const uint8_t* bytes, uint8_t* codes) {
    for (int half = 0; half < 2; half++, bytes += 32)
        for (int shift = 0; shift < 8; shift += 2, codes += 32)
            for (int i = 0; i < 32; i++) codes[i] = bytes[i] >> shift & 3;
}

// Bit g of byte i of 32 belongs to element 32 g + i.
BW_CLONES void add_bits(const uint8_t* bytes, int to, uint8_t* codes) {
    for (int group = 0; group < 8; group++, codes += 32)
        for (int i = 0; i < 32; i++)
            codes[i] = static_cast<uint8_t>(codes[i] | (bytes[i] >> group & 1) << to);
}

// 8 scales and 8 minima of six bits: the last four of each have their upper two bits above those of
// the first four.
void six_bits(const uint8_t* bytes, StoredBlock* block) {
    for (int i = 0; i < 4; i++) {
        const int scale = bytes[i], minimum = bytes[4 + i], both = bytes[8 + i];
        block->scales[i] = static_cast<uint8_t>(scale & 63);
        block->minima[i] = static_cast<uint8_t>(minimum & 63);
        block->scales[4 + i] = static_cast<uint8_t>((both & 15) | scale >> 6 << 4);
        block->minima[4 + i] = static_cast<uint8_t>(both >> 4 | minimum >> 6 << 4);
    }
}

void q2_k_scales(const uint8_t* bytes, StoredBlock* block) {
    for (int i = 0; i < 16; i++) {
        block->scales[i] = bytes[i] & 15;
        block->minima[i] = bytes[i] >> 4;
    }
    block->d = half_at(bytes + 80);
    block->m = half_at(bytes + 82);
}

void q3_k_scales(const uint8_t* bytes, StoredBlock* block) {
    const uint8_t *low = bytes + 96, *high = bytes + 104;
    for (int i = 0; i < 16; i++) {
        const int four = i < 8 ? low[i] & 15 : low[i - 8] >> 4;
        const int two = high[i % 4] >> (2 * (i / 4)) & 3;
        block->scales[i] = static_cast<uint8_t>((four | two << 4) - 32);
    }
    block->d = half_at(bytes + 108);
}

void q4_k_scales(const uint8_t* bytes, StoredBlock* block) {
    block->d = half_at(bytes);
    block->m = half_at(bytes + 2);
    six_bits(bytes + 4, block);
}

void q6_k_scales(const uint8_t* bytes, StoredBlock* block) {
    std::memcpy(block->scales, bytes + 192, 16);
    block->d = half_at(bytes + 208);
}

void iq4_xs_scales(const uint8_t* bytes, StoredBlock* block) {
    block->d = half_at(bytes);
    const int high = half_at(bytes + 2);
    for (int i = 0; i < 8; i++) {
        const int low = bytes[4 + i / 2] >> (4 * (i % 2)) & 15;
        block->scales[i] = static_cast<uint8_t>((low | (high >> (2 * i) & 3) << 4) - 32);
    }
}

void q4_k_codes(const uint8_t* bytes, uint8_t* codes) {
    for (int i = 0; i < 4; i++) nibbles(bytes + 32 * i, 32, codes + 64 * i);
}

BW_CLONES void q6_k_codes(const uint8_t* bytes, uint8_t* codes) {
    for (int half = 0; half < 2; half++) {
        nibbles(bytes + 64 * half, 64, codes);
        const uint8_t* high = bytes + 128 + 32 * half;
        for (int part = 0; part < 4; part++, codes += 32)
            for (int i = 0; i < 32; i++)
                codes[i] = static_cast<uint8_t>(codes[i] | (high[i] >> (2 * part) & 3) << 4);
    }
}

void iq4_xs_codes(const uint8_t* bytes, uint8_t* codes) {
    for (int i = 0; i < 8; i++) nibbles(bytes + 16 * i, 16, codes + 32 * i);
}

}  // namespace

void take_super_block_scales(Source source, const uint8_t* bytes, StoredBlock* block) {
    block->m = 0;
    switch (source) {
        case Source::q2_k:
            return q2_k_scales(bytes, block);
        case Source::q3_k:
            return q3_k_scales(bytes, block);
        case Source::q4_k:
        case Source::q5_k:
            return q4_k_scales(bytes, block);
        case Source::q6_k:
            return q6_k_scales(bytes, block);
        default:
            return iq4_xs_scales(bytes, block);
    }
}

void take_super_block_apart(Source source, const uint8_t* bytes, StoredBlock* block) {
    take_super_block_scales(source, bytes, block);
    switch (source) {
        case Source::q2_k:
            return pairs(bytes + 16, block->codes);
        case Source::q3_k:
            pairs(bytes + 32, block->codes);
            return add_bits(bytes, 2, block->codes);
        case Source::q4_k:
            return q4_k_codes(bytes + 16, block->codes);
        case Source::q5_k:
            q4_k_codes(bytes + 48, block->codes);
            return add_bits(bytes + 16, 4, block->codes);
        case Source::q6_k:
            return q6_k_codes(bytes, block->codes);
        default:
            return iq4_xs_codes(bytes + 8, block->codes);
    }
}

}  // namespace bw
