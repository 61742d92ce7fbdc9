// Codes and scales of groups in the formats whose codes stand for a table's values
// (docs/formats.md); the same on every processor.
#pragma once
#include "kernels/kernels.h"

namespace bw {

// Of a group of weights that are all 0, and of what pads short groups.
uint8_t zero_code(Format format);

// The codes of one group, padded to 32 with zeros, and its scale as a block stores it: a half, or
// the biased exponent of a power of two. False where the scale overflows a half.
bool quantise_codes(Format format, const float* w, uint16_t* scale, uint8_t* codes);

}  // namespace bw
