// Places the pages of weights in the memory of the processors that will read them.
#pragma once
#include <vector>

#include "executor/program.h"

namespace bw {

// Touches every page of untouched panels first from the processor whose thread will read it in an
// executor with these `cpus`, one a thread: systems give a page where it is first written.
void place_panels(const std::vector<Matrix>& matrices, const std::vector<int>& cpus);

}  // namespace bw
