// What the machine's memory gives: a plain read, as the upper limit of every product.
#pragma once
#include <cstddef>
#include <vector>

namespace bw {

// Bytes per second that `threads` threads read together from `bytes` of memory that no cache holds,
// the best of `rounds`. Pinned to `cpus` where given.
double read_bandwidth(int threads, size_t bytes, int rounds, const std::vector<int>& cpus);

}  // namespace bw
