// Which kernel variants this processor can run.
#pragma once
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace bw {

// The fastest first; `portable` is always among them.
std::vector<const Kernels*> usable_kernels();

// By name, or the fastest for an empty name. Throws std::invalid_argument.
const Kernels& find_kernels(const std::string& name);

}  // namespace bw
