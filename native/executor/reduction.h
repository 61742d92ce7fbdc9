// How the nodes of a group share a sum: the one place that decides it, for the executor and for who
// foresees what a step takes.
//
// A small sum takes one hop: every contributor sends all of it to everybody, and everybody adds. Of
// a large one each node adds up its own slice of the blocks and sends the result on: two hops and
// fewer bytes. With N nodes, n values and b bytes a value a node sends
//     directly            (N - 1) n b
//     scattered           (N - 1) n (b + 4) / N     (slices as b, sums as int32)
// so that the second pays where the difference is more than what a link carries in the time of one
// hop. For two nodes and exact sums both are the same, and one hop wins.
#pragma once
#include <cstddef>

#include "exchange/frame.h"
#include "executor/wire.h"

namespace bw {

// Bytes that a link carries in the time of one hop, between those of 1 Gbit/s and of shared memory;
// and the rows of a chunk at least, so that reading the weights once a chunk is little beside
// multiplying them.
constexpr size_t kHopBytes = 64 << 10;
constexpr int kOverlapRows = 64;

// In how many chunks of rows the sums leave; scattered: each node adds up a slice and sends it on.
struct ReductionPlan {
    int chunks = 1;
    bool scattered = false;
};

// A pure function of what every node of the group knows.
ReductionPlan plan_reduction(int rows, int width, int nodes, WireFormat wire, size_t hop_bytes,
                             int overlap_rows);
// Bytes that a node sends to each other one, in each hop of all chunks, as long as all exact sums
// fit int32 and slices are as large as the largest.
size_t planned_bytes(const ReductionPlan& plan, int rows, int width, int nodes);
// Before a message there is room for its header.
constexpr size_t kFrameRoom = (sizeof(FrameHeader) + 63) / 64 * 64;
// Bytes of a message of that many rows at most, its header's room included.
size_t message_room(int rows, int width);
// Bytes that the messages of one all_reduce_add take at most.
size_t reduction_bytes(int rows, int width, int nodes);

}  // namespace bw
