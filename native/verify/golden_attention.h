// The golden digests of attention (golden.h).
#pragma once
#include <cstdint>

#include "kernels/kernels.h"

namespace bw {

// Eleven query heads (8 + 3, or 4 + 4 + 3 together) of one row, with and without a window.
uint64_t golden_attention(const Kernels& kernels, bool half);
// Keys, values and queries that are small, and scores so far apart that weights are too.
// Scores with a bound, and with a score that no key has.
uint64_t golden_attention_bounded(const Kernels& kernels, bool half);
uint64_t golden_attention_small(const Kernels& kernels, bool half);
// Numbers so large that they would show under weights that do not count: in a chunk, and in what
// the chunks before have come to.
uint64_t golden_attention_distant(const Kernels& kernels);
// Four rows of two heads, which see from none to all of the chunks whole, together and each alone:
// the same.
uint64_t golden_attention_rows(const Kernels& kernels, bool half);

}  // namespace bw
