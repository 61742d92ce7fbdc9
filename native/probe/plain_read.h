// What the machine's memory gives: a plain read, as the upper limit of every product.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/arena.h"
#include "core/threads.h"

namespace bw {

// Memory that is kept from read to read: taking it and giving it back is work for the system (and
// the host of a virtual machine) that would go on under whatever is measured next.
class PlainRead {
  public:
    // Up to `threads` threads, pinned to `cpus` where given, and `bytes` that no cache should hold.
    PlainRead(int threads, size_t bytes, const std::vector<int>& cpus);

    // Bytes per second that `threads` of the threads read together, over all of `rounds` reads:
    // with or without fetching ahead by hand, whichever is quicker.
    double bytes_per_s(int threads, int rounds);

  private:
    double seconds(int threads, size_t ahead);

    size_t bytes_;
    Arena memory_;
    uint8_t* base_;
    ThreadTeam team_;
    uint64_t sums_ = 0;  // so that no read is left out
};

}  // namespace bw
