// The golden digests of mixtures of experts and of latent attention (golden.h).
#pragma once
#include <cstdint>

#include "kernels/kernels.h"

namespace bw {

// Softmax and the logistic function of numbers in one round of the lanes and in several, and of
// numbers far apart.
uint64_t golden_scores(const Kernels& kernels, int reach);
// Biases of odd widths, some of them out of range.
uint64_t golden_grid_bias(const Kernels& kernels, int reach);
// Two experts' products of rows that lie anywhere among others, each row with its own weight, one
// added to the other.
uint64_t golden_experts(const Kernels& kernels, Format format, int reach);
// Thirteen heads (8 + 4 + 1, or 4 + 4 + 4 + 1 together) of one row, and five of several rows, over
// three pages.
uint64_t golden_latent(const Kernels& kernels, bool half, int reach);

}  // namespace bw
