// The weight formats by number, how checkpoints store weights, and what a group of a panel takes.
#pragma once
#include <cstddef>
#include <cstdint>

namespace bw {

constexpr int kPanel = 16;  // outputs of a weight panel
constexpr int kGroup = 32;  // elements of a quantisation group

// From q4_1 on: blocks as GGUF stores them (block_shape.h).
enum class Format : int {
    f32 = 0,
    bf16 = 1,
    q8 = 2,
    q4 = 3,
    mxfp4 = 4,
    nf4 = 5,
    ulaw4 = 6,
    q4_1 = 7,
    q5_0 = 8,
    q5_1 = 9,
    iq4_nl = 10,
    q2_k = 11,
    q3_k = 12,
    q4_k = 13,
    q5_k = 14,
    q6_k = 15,
    iq4_xs = 16
};
constexpr int kFormats = 17;

// From q4_0 on: GGUF's blocks (gguf_blocks.h).
enum class Source : int {
    f32 = 0,
    bf16 = 1,
    f16 = 2,
    q4_0 = 3,
    q8_0 = 4,
    mxfp4 = 5,
    q4_1 = 6,
    q5_0 = 7,
    q5_1 = 8,
    iq4_nl = 9,
    q2_k = 10,
    q3_k = 11,
    q4_k = 12,
    q5_k = 13,
    q6_k = 14,
    iq4_xs = 15
};
constexpr int kSources = 16;

// In headers that every variant compiles: a copy kept out of line could come from a variant that
// this processor can't run.
#define BW_INLINE inline __attribute__((always_inline))

// Integers and scales, in groups; the others are plain numbers.
constexpr BW_INLINE bool is_quantised(Format format) {
    return format != Format::f32 && format != Format::bf16;
}

}  // namespace bw
