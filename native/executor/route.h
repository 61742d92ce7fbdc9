// Which experts a row goes to, and with what weights: docs/numerics.md, section 12.
#pragma once
#include "executor/program.h"

namespace bw {

// Floats of scratch that a row needs.
size_t route_scratch(const Op& op);

// From a row's logits to its routes: the experts, ascending, then their weights. `correction` is
// null or has a number for each expert. False where a logit, or a score that the choice goes by, is
// not finite.
bool route_row(const Op& op, const Kernels& kernels, const float* logits, const float* correction,
               float* scratch, float* routes);

}  // namespace bw
