// GGUF's blocks as they lie in a file, taken apart; formats/gguf_blocks.py says the same in numpy.
// Layouts after ggml's ggml-common.h and ggml-quants.c.
#pragma once
#include "kernels/formats.h"

namespace bw {

constexpr bool stores_blocks(Source source) { return source >= Source::q4_0; }

// Columns and bytes of a stored block.
struct BlockSize {
    int columns;
    size_t bytes;
};
BlockSize block_size(Source source);

// The format that runs blocks as they are stored.
Format runs_as(Source source);

// A block's codes in the order of its columns, its numbers as f16 (mxfp4's scale as the byte that
// is stored), and a super-block's integer scales, signed ones as int8, and minima.
struct StoredBlock {
    uint8_t codes[256];
    uint16_t d, m;
    uint8_t scales[16], minima[16];
};
void take_apart(Source source, const uint8_t* bytes, StoredBlock* block);
void take_super_block_apart(Source source, const uint8_t* bytes, StoredBlock* block);
// All of them but the codes.
void take_scales(Source source, const uint8_t* bytes, StoredBlock* block);
void take_super_block_scales(Source source, const uint8_t* bytes, StoredBlock* block);

// The weights of one block as floats: each of both products is exact, and so only their sum or
// difference is rounded. What is not finite stays so.
void widen_block(Source source, const uint8_t* bytes, float* weights);

}  // namespace bw
