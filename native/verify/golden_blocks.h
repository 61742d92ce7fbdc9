// Golden digests of products with GGUF's blocks, of their packing and of their weights as floats.
#pragma once
#include "kernels/kernels.h"

namespace bw {

// Some rows with three panels, the last of them short; on the grid, with factors, where the unit is
// not the whole k. `small`: of tiny numbers.
uint64_t golden_block_product(const Kernels& kernels, Source source, size_t rows,
                              const Layout& layout, bool small);

// Panels and floats of every stored type.
uint64_t golden_stored_blocks();

}  // namespace bw
