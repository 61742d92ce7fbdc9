// How far ahead of its products a node fetches weights by hand, found by trying.
#pragma once
#include <cstddef>

#include "core/threads.h"
#include "executor/program.h"

namespace bw {

// Bytes, 0 for not at all. What a processor's own prefetching leaves to be gained differs: on
// AMD's Zen 4 hints take its place and cost 5 to 25 % of the read bandwidth, on Intel's Ice Lake
// they add 20 %. So the team reads some of the program's weights both ways, in turns, through
// the kernel that will read them: some tens of milliseconds. Nothing is tried where all weights
// may stay in caches.
size_t find_fetch_ahead(const Program&, const Kernels&, ThreadTeam&);

}  // namespace bw
