// Frames: what crosses a link, and what is counted of it. Plain data.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "core/crc32c.h"

namespace bw {

// A step that cannot go on; the message names the node or the layer.
struct StepError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

enum class FrameKind : uint16_t { step = 1, data = 2, progress = 3, abort = 4, bye = 5 };

constexpr uint16_t kMagic = 0x3357;  // "W3"
constexpr int kMostNodes = 1 << 15;

struct FrameHeader {
    uint16_t magic;
    uint16_t kind;
    uint16_t node;        // the sender
    uint16_t part;        // data: which message of the operation, from 0; progress: 1 + the node
                          // that the sender waits for, 0 while computing
    uint32_t generation;  // of the mesh
    uint32_t step;
    uint32_t op;     // data: the operation; progress: goes up with the sender's work
    uint32_t bytes;  // of the payload
    uint32_t
        payload_sum;  // crc32c of the payload; of nothing over memory, and where links are sealed
    uint32_t header_sum;  // crc32c of all before it
};
static_assert(sizeof(FrameHeader) == 32);

inline uint32_t header_sum(const FrameHeader& header) {
    return crc32c(0, &header, offsetof(FrameHeader, header_sum));
}

// What frames carry. Nothing sends weights or KV yet; whoever will is counted.
enum class Traffic { activations, logits, control, weights, kv };
constexpr int kTraffics = 5;

struct WireCounters {
    uint64_t bytes[kTraffics] =
        {};  // by Traffic as the wire carries them, headers and tags included
    uint64_t exchanges = 0;
    double wait_seconds = 0, wire_seconds = 0;
    double sealing_seconds = 0;  // part of those, but for what leaves in the midst of computing
};

}  // namespace bw
