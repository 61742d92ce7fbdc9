// What becomes of numbers when they are stored (docs/numerics.md, section 11): too small ones are
// +0.
#pragma once
#include <cstddef>

namespace bw {

// `out` may be `values` themselves.
void store_values(const float* values, size_t count, float* out);

}  // namespace bw
