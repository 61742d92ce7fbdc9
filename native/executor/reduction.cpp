#include "executor/reduction.h"

#include <algorithm>
#include <cstdint>

#include "executor/span.h"

namespace bw {

namespace {

constexpr int kMostChunks = 4;

double bytes_a_value(WireFormat format) {
    return static_cast<double>(block_bytes(wire_tag(format), kBlock)) / kBlock;
}

}  // namespace

size_t message_room(int rows, int width) {
    return kFrameRoom + (most_message_bytes(rows, width) + 63) / 64 * 64;
}

size_t reduction_bytes(int rows, int width, int nodes) {
    // Slices are messages of their own, each with its room and its ends rounded up.
    const size_t ends = static_cast<size_t>(kMostChunks) * static_cast<size_t>(nodes + 1);
    return message_room(rows, width) + ends * (kFrameRoom + 256);
}

ReductionPlan plan_reduction(int rows, int width, int nodes, WireFormat wire, size_t hop_bytes,
                             int overlap_rows) {
    ReductionPlan plan;
    if (nodes == 1) return plan;
    const size_t bytes = sizeof(int32_t) * static_cast<size_t>(rows) * static_cast<size_t>(width);
    const int chunk_rows = std::max(1, overlap_rows);
    if (rows >= 2 * chunk_rows && bytes >= 2 * hop_bytes)
        plan.chunks = std::min(kMostChunks, rows / chunk_rows);
    const double values = static_cast<double>(width) * (rows / plan.chunks);
    const double own = bytes_a_value(wire);
    const double saved = (nodes - 1) * values * (own - (own + 4) / nodes);
    plan.scattered = saved > static_cast<double>(hop_bytes);
    return plan;
}

size_t planned_bytes(const ReductionPlan& plan, int rows, int width, int nodes) {
    size_t bytes = 0;
    for (int index = 0; index < plan.chunks; index++) {
        const Span own = part(rows, index, plan.chunks);
        const Blocks blocks{own.to - own.from, width};
        // The last slice is as large as any.
        const Span sent =
            plan.scattered ? part(blocks.count(), nodes - 1, nodes) : Span{0, blocks.count()};
        const auto count = static_cast<size_t>(sent.to - sent.from);
        bytes += tag_bytes(count) + blocks_bytes(blocks, 4, sent.from, sent.to);
    }
    return bytes;
}

}  // namespace bw
