#include "kernels/pack_blocks.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "core/numerics.h"
#include "kernels/code_book.h"
#include "kernels/stored_codes.h"

namespace bw {

namespace {

constexpr const char* kNotFinite = "holds a NaN or an infinity";

bool finite_half(uint16_t half) { return (half & 0x7c00) != 0x7c00; }

uint32_t word_at(const uint8_t* bytes) {
    uint32_t word;
    std::memcpy(&word, bytes, sizeof word);
    return word;
}

void put_word(uint8_t* lines, int line, int r, uint32_t word) {
    std::memcpy(lines + 64 * line + 4 * r, &word, sizeof word);
}

// The halves of a word whose columns are those of two lines, or of one.
uint32_t low_half(uint64_t word) { return static_cast<uint32_t>(word); }
uint32_t high_half(uint64_t word) { return static_cast<uint32_t>(word >> 32); }

// A group's lines: of nibbles, of pairs of bits and of single bits, as its format has them. A byte
// of a word of nibbles holds columns c and 16 + c, one of pairs those and columns 4 + c and 20 + c,
// one of single bits those and the four that are eight columns on.
template <Source kSource, Format kFormat>
BW_INLINE void put_group(uint8_t* lines, int r, const uint8_t* block, int group) {
    constexpr BlockShape kShape =
        kFormat == Format::q4 ? block_shape(Format::q4_1) : block_shape(kFormat);
    if constexpr (kShape.nibble_lines() > 0) {
        for (int at = 0; at < 16; at += 8) {
            const uint64_t both = stored_nibbles<kSource>(block, group, at) |
                                  stored_nibbles<kSource>(block, group, 16 + at) << 4;
            put_word(lines, at / 4, r, low_half(both));
            put_word(lines, at / 4 + 1, r, high_half(both));
        }
        lines += 256;
    }
    if constexpr (kShape.pair_lines() > 0) {
        for (int at = 0; at < 16; at += 8) {
            const uint64_t both = stored_pairs<kSource>(block, group, at) |
                                  stored_pairs<kSource>(block, group, 16 + at) << 2;
            put_word(lines, at / 8, r, low_half(both) | high_half(both) << 4);
        }
        lines += 128;
    }
    if constexpr (kShape.bit_lines() > 0) {
        const uint64_t four = stored_bits<kSource>(block, group, 0) |
                              stored_bits<kSource>(block, group, 16) << 1 |
                              stored_bits<kSource>(block, group, 8) << 4 |
                              stored_bits<kSource>(block, group, 24) << 5;
        put_word(lines, 0, r, low_half(four) | high_half(four) << 2);
    }
}

void put_scales(const BlockShape& shape, uint8_t* to, int r, const StoredBlock& block) {
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

// The same where the scale neither makes a number infinite nor one too small to be stored, and not
// all are zero; false where it may.
bool put_usual_mxfp4(uint8_t* to, int r, const uint8_t* bytes) {
    constexpr int kLeast = 128 - 40, kMost = 248;
    static_assert(kSmallestStored == 0x1p-40f, "2^(kLeast - 128)");
    const uint8_t scale = bytes[0];
    if (scale < kLeast || scale > kMost) return false;
    uint64_t all = 0;
    for (int at = 0; at < 16; at += 8) all |= columns_at(bytes + 1 + at);
    if ((all & in_all_bytes(0x77)) == 0) return false;  // codes 0 and 8 are zeros
    to[r] = static_cast<uint8_t>(scale - 1);
    put_group<Source::mxfp4, Format::q4>(to + scale_bytes(Format::mxfp4), r, bytes, 0);
    return true;
}

// Signed bytes, in panels 128 larger.
void put_bytes(uint8_t* to, int r, const uint8_t* codes) {
    for (int line = 0; line < 8; line++)
        put_word(to, line, r, word_at(codes + 4 * line) ^ 0x80808080u);
}

// One block as output `r` of a panel.
template <Source kSource, Format kFormat>
const char* put_block(uint8_t* to, int r, const uint8_t* bytes) {
    StoredBlock block;
    if constexpr (kFormat == Format::mxfp4) {
        if (put_usual_mxfp4(to, r, bytes)) return nullptr;
        take_apart(kSource, bytes, &block);
        return put_mxfp4(to, r, block);
    } else {
        take_scales(kSource, bytes, &block);
        if (!finite_half(block.d)) return kNotFinite;
        if constexpr (kFormat == Format::q8 || kFormat == Format::q4) {
            std::memcpy(to + 2 * r, &block.d, 2);
            uint8_t* lines = to + scale_bytes(kFormat);
            if constexpr (kFormat == Format::q8)
                put_bytes(lines, r, bytes + 2);
            else
                put_group<kSource, kFormat>(lines, r, bytes, 0);
        } else {
            constexpr BlockShape kShape = block_shape(kFormat);
            if (kShape.minima && !finite_half(block.m)) return kNotFinite;
            put_scales(kShape, to, r, block);
            uint8_t* lines = to + kShape.lines_at();
            for (int group = 0; group < kShape.groups(); group++, lines += kShape.group_bytes())
                put_group<kSource, kFormat>(lines, r, bytes, group);
        }
        return nullptr;
    }
}

// Block after block of all rows, so that a panel's block stays in the nearest cache until its lines
// are full.
template <Source kSource, Format kFormat>
const char* put_rows(const Layout& layout, uint8_t* panel, int r, int rows, const uint8_t* bytes,
                     size_t stride) {
    const BlockSize size = block_size(kSource);
    for (int at = 0; at < layout.k; at += size.columns, bytes += size.bytes) {
        for (int i = 0; i < rows; i++) {
            const uint8_t* block = bytes + stride * static_cast<size_t>(i);
            if (const char* wrong = put_block<kSource, kFormat>(panel, r + i, block)) return wrong;
        }
        panel += block_bytes(kFormat);
    }
    return nullptr;
}

}  // namespace

bool holds_as_stored(Format format, const Layout& layout, Source source) {
    return stores_blocks(source) && runs_as(source) == format &&
           layout.unit % block_size(source).columns == 0;
}

void put_nibbles(uint8_t* lines, int r, const uint8_t* q) {
    for (int j = 0; j < 4; j++) {
        const uint32_t low = word_at(q + 4 * j) & 0x0f0f0f0fu;
        put_word(lines, j, r, low | (word_at(q + 16 + 4 * j) & 0x0f0f0f0fu) << 4);
    }
}

const char* pack_blocks(const Layout& layout, uint8_t* panel, int r, int rows, Source source,
                        const uint8_t* bytes, size_t stride) {
    switch (source) {
        case Source::q4_0:
            return put_rows<Source::q4_0, Format::q4>(layout, panel, r, rows, bytes, stride);
        case Source::q8_0:
            return put_rows<Source::q8_0, Format::q8>(layout, panel, r, rows, bytes, stride);
        case Source::mxfp4:
            return put_rows<Source::mxfp4, Format::mxfp4>(layout, panel, r, rows, bytes, stride);
        case Source::q4_1:
            return put_rows<Source::q4_1, Format::q4_1>(layout, panel, r, rows, bytes, stride);
        case Source::q5_0:
            return put_rows<Source::q5_0, Format::q5_0>(layout, panel, r, rows, bytes, stride);
        case Source::q5_1:
            return put_rows<Source::q5_1, Format::q5_1>(layout, panel, r, rows, bytes, stride);
        case Source::iq4_nl:
            return put_rows<Source::iq4_nl, Format::iq4_nl>(layout, panel, r, rows, bytes, stride);
        case Source::q2_k:
            return put_rows<Source::q2_k, Format::q2_k>(layout, panel, r, rows, bytes, stride);
        case Source::q3_k:
            return put_rows<Source::q3_k, Format::q3_k>(layout, panel, r, rows, bytes, stride);
        case Source::q4_k:
            return put_rows<Source::q4_k, Format::q4_k>(layout, panel, r, rows, bytes, stride);
        case Source::q5_k:
            return put_rows<Source::q5_k, Format::q5_k>(layout, panel, r, rows, bytes, stride);
        case Source::q6_k:
            return put_rows<Source::q6_k, Format::q6_k>(layout, panel, r, rows, bytes, stride);
        default:
            return put_rows<Source::iq4_xs, Format::iq4_xs>(layout, panel, r, rows, bytes, stride);
    }
}

}  // namespace bw
