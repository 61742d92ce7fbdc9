// Puts GGUF's blocks into panels as they are: the very codes and scales, laid out anew
// (formats/block_packing.py). The same on every processor.
#pragma once
#include "kernels/gguf_blocks.h"
#include "kernels/kernels.h"

namespace bw {

// Whether panels of the format and layout hold such blocks as they are stored.
bool holds_as_stored(Format format, const Layout& layout, Source source);

// Packs blocks of rows, `stride` bytes apart, that the format holds as they are stored, as outputs
// `r` and up of one panel. What is wrong with them, or null.
const char* pack_blocks(const Layout& layout, uint8_t* panel, int r, int rows, Source source,
                        const uint8_t* bytes, size_t stride);

// The lowest 4 bits of a group's codes, into the lines that q4 and its like have.
void put_nibbles(uint8_t* lines, int r, const uint8_t* q);

}  // namespace bw
