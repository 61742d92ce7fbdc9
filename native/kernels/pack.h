// Packs rows of a checkpoint's tensor into weight panels (docs/numerics.md section 2 for the
// values, formats/packing.py for the layout). The same code on every processor.
#pragma once
#include <string>

#include "kernels/content_sums.h"
#include "kernels/gguf_blocks.h"
#include "kernels/kernels.h"

namespace bw {

// Bytes of one stored value; GGUF's blocks count as single bytes.
inline size_t stored_bytes(Source source) {
    return source == Source::f32 ? 4 : stores_blocks(source) ? 1 : 2;
}

// `count` values from `offset` on, as floats; exact. Not of blocks.
void widen(Source source, const void* values, size_t offset, int count, float* out);

// Fills the panels with the padding that rows and short groups leave.
void clear_panels(Format format, const Layout& layout, int num_panels, uint8_t* panels);

bool all_finite(const float* x, size_t count);

// A row of blocks as floats, `count` of them.
void widen_blocks(Source source, const uint8_t* row, int count, float* out);

// Packs `rows` rows of `layout.k` elements, `stride` stored values apart, as outputs first_output
// and up. Returns an empty string, or what is wrong with the values. Adds the rows' bytes to
// `sums`, where it is not null, while they are in the nearest cache. Blocks stay the blocks that
// they are where the format runs them so and no unit cuts one; else they are weights as any others.
std::string pack_rows(Format format, const Layout& layout, uint8_t* panels, int first_output,
                      Source source, const void* values, size_t stride, int rows,
                      ContentSums* sums = nullptr);

}  // namespace bw
