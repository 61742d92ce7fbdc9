// The golden digests of gated delta nets (golden.h).
#pragma once
#include <cstdint>

#include "kernels/kernels.h"

namespace bw {

// Norms without weights, of one round of the lanes and of several, one of nothing but zeros.
uint64_t golden_l2_norm(const Kernels& kernels, int reach);
// What heads keep of their states: numbers and rates near and far, whose exponentials reach zero.
uint64_t golden_decay(const Kernels& kernels, int reach);
// Convolutions over one to five rows, from channels in the midst of a vector on.
uint64_t golden_short_conv(const Kernels& kernels, int reach);
// A state of 37 by 85 that some rows change, of which one forgets all and one nothing.
uint64_t golden_delta_rule(const Kernels& kernels, int reach);

}  // namespace bw
