#include "kernels/gguf_blocks.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "core/clones.h"
#include "kernels/block_shape.h"
#include "kernels/code_book.h"

#define BW_ISA_PORTABLE
#include "simd/vec16.h"

namespace bw {

namespace {

constexpr BlockSize kSizes[kSources] = {
    {1, 4},   {1, 2},   {1, 2},    {32, 18},   {32, 34},   {32, 17},   {32, 20},   {32, 22},
    {32, 24}, {32, 18}, {256, 84}, {256, 110}, {256, 144}, {256, 176}, {256, 210}, {256, 136}};
constexpr Format kRuns[kSources] = {Format::f32,  Format::bf16,   Format::bf16, Format::q4,
                                    Format::q8,   Format::mxfp4,  Format::q4_1, Format::q5_0,
                                    Format::q5_1, Format::iq4_nl, Format::q2_k, Format::q3_k,
                                    Format::q4_k, Format::q5_k,   Format::q6_k, Format::iq4_xs};

// 16 bytes' low halves, then their high ones.
BW_CLONES void take_nibbles(const uint8_t* bytes, uint8_t* codes) {
    for (int i = 0; i < 16; i++) {
        codes[i] = bytes[i] & 15;
        codes[16 + i] = bytes[i] >> 4;
    }
}

BW_CLONES void add_fifth_bits(const uint8_t* bytes, uint8_t* codes) {
    uint32_t word;
    std::memcpy(&word, bytes, sizeof word);
    for (int i = 0; i < kGroup; i++) codes[i] |= static_cast<uint8_t>((word >> i & 1) << 4);
}

uint16_t half_at(const uint8_t* bytes) {
    uint16_t half;
    std::memcpy(&half, bytes, sizeof half);
    return half;
}

// Whether a block of 32 has a minimum beside its scale.
bool has_minima(Source source) { return source == Source::q4_1 || source == Source::q5_1; }

// One run of columns with scale `d` and, where there are minima, what is added.
BW_CLONES void widen_run(const uint8_t* codes, int count, int zero, float d, float added,
                         float* weights) {
    for (int i = 0; i < count; i++) weights[i] = d * static_cast<float>(codes[i] - zero) + added;
}

BW_CLONES void widen_book(const uint8_t* codes, int count, const int8_t* values, float d,
                          float* weights) {
    for (int i = 0; i < count; i++) weights[i] = d * static_cast<float>(values[codes[i]]);
}

// By way of doubles: a power of two may be below what floats have.
void widen_mxfp4(const StoredBlock& block, float* weights) {
    const double d = std::ldexp(1.0, block.d - 128);
    for (int i = 0; i < kGroup; i++)
        weights[i] = static_cast<float>(d * Mxfp4Codes::kValues[block.codes[i]]);
}

}  // namespace

BlockSize block_size(Source source) { return kSizes[static_cast<int>(source)]; }

Format runs_as(Source source) { return kRuns[static_cast<int>(source)]; }

void take_apart(Source source, const uint8_t* bytes, StoredBlock* block) {
    const uint8_t* next = bytes + (has_minima(source) ? 4 : 2);
    switch (source) {
        case Source::q8_0:
            std::memcpy(block->codes, next, kGroup);
            break;
        case Source::mxfp4:
            take_nibbles(bytes + 1, block->codes);
            break;
        case Source::q5_0:
        case Source::q5_1:
            take_nibbles(next + 4, block->codes);
            add_fifth_bits(next, block->codes);
            break;
        case Source::q4_0:
        case Source::q4_1:
        case Source::iq4_nl:
            take_nibbles(next, block->codes);
            break;
        default:
            return take_super_block_apart(source, bytes, block);
    }
    take_scales(source, bytes, block);
}

void take_scales(Source source, const uint8_t* bytes, StoredBlock* block) {
    if (block_size(source).columns > kGroup) return take_super_block_scales(source, bytes, block);
    block->d = source == Source::mxfp4 ? uint16_t{bytes[0]} : half_at(bytes);
    block->m = has_minima(source) ? half_at(bytes + 2) : uint16_t{0};
}

void widen_block(Source source, const uint8_t* bytes, float* weights) {
    StoredBlock block;
    take_apart(source, bytes, &block);
    if (source == Source::mxfp4) return widen_mxfp4(block, weights);
    const float d = portable::half_to_float(block.d);
    if (source == Source::q8_0) {
        for (int i = 0; i < kGroup; i++)
            weights[i] = d * static_cast<float>(static_cast<int8_t>(block.codes[i]));
        return;
    }
    if (source == Source::q4_0)
        return widen_run(block.codes, kGroup, Q4Codes::kZeroPoint, d, -0.0f, weights);
    const BlockShape shape = block_shape(runs_as(source));
    const float m = portable::half_to_float(block.m);
    for (int at = 0; at < shape.columns; at += shape.sub) {
        const int run = at / shape.sub;
        float scale = d, added = shape.minima ? m : -0.0f;  // -0 changes nothing
        if (shape.scales != BlockScales::none) {
            const bool with_sign = shape.scales == BlockScales::signed_bytes;
            const int whole =
                with_sign ? static_cast<int8_t>(block.scales[run]) : block.scales[run];
            scale = d * static_cast<float>(whole);
            added = shape.minima ? -(m * static_cast<float>(block.minima[run])) : -0.0f;
        }
        if (shape.book)
            widen_book(block.codes + at, shape.sub, kIq4Values, scale, weights + at);
        else
            widen_run(block.codes + at, shape.sub, shape.zero_point, scale, added, weights + at);
    }
}

}  // namespace bw
