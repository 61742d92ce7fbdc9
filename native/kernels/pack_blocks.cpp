#include "kernels/pack_blocks.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "core/numerics.h"
#include "kernels/code_book.h"

namespace bw {

namespace {

constexpr const char* kNotFinite = "holds a NaN or an infinity";

bool finite_half(uint16_t half) { return (half & 0x7c00) != 0x7c00; }

uint32_t word_at(const uint8_t* bytes) {
    uint32_t word;
    std::memcpy(&word, bytes, sizeof word);
    return word;
}

// Four columns' codes at a time, as the bytes of a word: elements 16 h + 4 j and up of a group.
uint32_t codes_at(const uint8_t* q, int j, int h) { return word_at(q + 16 * h + 4 * j); }

void put_word(uint8_t* lines, int line, int r, uint32_t word) {
    std::memcpy(lines + 64 * line + 4 * r, &word, sizeof word);
}

// Two bits of each code, from bit `from` on.
void put_pairs(uint8_t* lines, int r, const uint8_t* q, int from) {
    for (int line = 0; line < 2; line++) {
        uint32_t word = 0;
        for (int i = 0; i < 4; i++) {
            const uint32_t pairs = codes_at(q, 2 * line + i / 2, i % 2) >> from & 0x03030303u;
            word |= pairs << (2 * i);
        }
        put_word(lines, line, r, word);
    }
}

// Bit `from` of each code.
void put_bits(uint8_t* lines, int r, const uint8_t* q, int from) {
    uint32_t word = 0;
    for (int i = 0; i < 8; i++) word |= (codes_at(q, i / 2, i % 2) >> from & 0x01010101u) << i;
    put_word(lines, 0, r, word);
}

void put_group(const BlockShape& shape, uint8_t* lines, int r, const uint8_t* q) {
    int from = 0;
    if (shape.nibble_lines() > 0) {
        put_nibbles(lines, r, q);
        lines += 256;
        from = 4;
    }
    if (shape.pair_lines() > 0) {
        put_pairs(lines, r, q, from);
        lines += 128;
        from += 2;
    }
    if (shape.bit_lines() > 0) put_bits(lines, r, q, from);
}

void put_block(const BlockShape& shape, uint8_t* to, int r, const StoredBlock& block) {
    std::memcpy(to + 2 * r, &block.d, 2);
    if (shape.minima) std::memcpy(to + 2 * kPanel + 2 * r, &block.m, 2);
    uint8_t *scales = to + shape.scales_at() + r, *minima = to + shape.minima_at() + r;
    const bool together = shape.scales == BlockScales::nibbles;
    for (int i = 0; i < shape.subs(); i++) {
        scales[kPanel * i] = block.scales[i];
        if (together)
            scales[kPanel * i] = static_cast<uint8_t>(block.scales[i] | block.minima[i] << 4);
        else if (shape.minima)
            minima[kPanel * i] = block.minima[i];
    }
    uint8_t* lines = to + shape.lines_at();
    for (int group = 0; group < shape.groups(); group++, lines += shape.group_bytes())
        put_group(shape, lines, r, block.codes + kGroup * group);
}

// GGUF's byte e means 2^(e - 128) times the doubled numbers, a panel's 2^(byte - 127). Weights
// below what is stored are zeros; a block of nothing else has no scale.
const char* put_mxfp4(uint8_t* to, int r, StoredBlock& block) {
    const double d = std::ldexp(1.0, block.d - 128);
    bool any = false;
    for (uint8_t* code = block.codes; code < block.codes + kGroup; code++) {
        const double size = std::fabs(d * Mxfp4Codes::kValues[*code]);
        if (size > static_cast<double>(std::numeric_limits<float>::max())) return kNotFinite;
        if (size == 0) continue;
        if (size < static_cast<double>(kSmallestStored)) *code = 0;
        any |= *code != 0;
    }
    if (!any) std::memset(block.codes, 0, kGroup);
    to[r] = static_cast<uint8_t>(any ? block.d - 1 : 0);
    put_nibbles(to + scale_bytes(Format::mxfp4), r, block.codes);
    return nullptr;
}

// Signed bytes, in panels 128 larger.
void put_bytes(uint8_t* to, int r, const StoredBlock& block) {
    std::memcpy(to + 2 * r, &block.d, 2);
    for (int line = 0; line < 8; line++)
        put_word(to + 32, line, r, word_at(block.codes + 4 * line) ^ 0x80808080u);
}

}  // namespace

bool holds_as_stored(Format format, const Layout& layout, Source source) {
    return stores_blocks(source) && runs_as(source) == format &&
           layout.unit % block_size(source).columns == 0;
}

void put_nibbles(uint8_t* lines, int r, const uint8_t* q) {
    for (int j = 0; j < 4; j++) {
        const uint32_t low = codes_at(q, j, 0) & 0x0f0f0f0fu;
        put_word(lines, j, r, low | (codes_at(q, j, 1) & 0x0f0f0f0fu) << 4);
    }
}

const char* pack_blocks(Format format, const Layout& layout, uint8_t* panel, int r, Source source,
                        const uint8_t* bytes) {
    const BlockSize size = block_size(source);
    for (int at = 0; at < layout.k; at += size.columns, bytes += size.bytes) {
        StoredBlock block;
        take_apart(source, bytes, &block);
        if (format == Format::mxfp4) {
            if (const char* wrong = put_mxfp4(panel, r, block)) return wrong;
        } else {
            if (!finite_half(block.d)) return kNotFinite;
            if (format == Format::q8) {
                put_bytes(panel, r, block);
            } else if (format == Format::q4) {
                std::memcpy(panel + 2 * r, &block.d, 2);
                put_nibbles(panel + scale_bytes(format), r, block.codes);
            } else {
                const BlockShape shape = block_shape(format);
                if (shape.minima && !finite_half(block.m)) return kNotFinite;
                put_block(shape, panel, r, block);
            }
        }
        panel += block_bytes(format);
    }
    return nullptr;
}

}  // namespace bw
