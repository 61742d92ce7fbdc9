// Exchange: frames between the nodes of one mesh, with bounded waits. One computing thread uses it.
// Knows no programs: an operation is a number here.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "exchange/transport.h"

namespace bw {

// A step that cannot go on; the message names the node or the layer.
struct StepError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

enum class FrameKind : uint16_t { step = 1, data = 2, progress = 3, abort = 4, bye = 5 };

struct FrameHeader {
    uint32_t magic;
    uint16_t kind;
    uint16_t node;        // the sender
    uint32_t generation;  // of the mesh
    uint32_t step;
    uint32_t op;
    uint32_t waiting;     // progress: 1 + the node that the sender waits for, 0 while computing
    uint32_t stalled_ms;  // progress: how long the sender has seen no progress of that node
    uint32_t bytes;       // of the payload
};
static_assert(sizeof(FrameHeader) == 32);

// What frames carry. Nothing sends weights or KV yet; whoever will is counted.
enum class Traffic { activations, logits, control, weights, kv };
constexpr int kTraffics = 5;

struct WireCounters {
    uint64_t bytes[kTraffics] = {};  // by Traffic, frames' headers included
    uint64_t all_bytes = 0;          // as the transports took them
    uint64_t exchanges = 0;
    double wait_seconds = 0, wire_seconds = 0;
};

class Exchange {
  public:
    // `names[i]` names node i in messages. A peer that makes no progress for `stall_seconds` is an
    // error. `spin` off where threads outnumber processors.
    Exchange(int node, std::vector<std::string> names, uint32_t generation, double stall_seconds,
             bool spin);
    ~Exchange();
    Exchange(const Exchange&) = delete;
    Exchange& operator=(const Exchange&) = delete;

    void add_link(int peer, std::unique_ptr<Transport> transport);
    int node() const { return node_; }
    int num_nodes() const { return static_cast<int>(names_.size()); }

    // A buffer for a frame of `bytes` of payload; fill payload() and hand it to transfer().
    uint8_t* prepare(size_t bytes);
    // Cuts the prepared frame's payload to fewer bytes.
    void shrink(size_t bytes);

    struct Received {
        int node;
        const uint8_t* payload;
        size_t bytes;
    };
    // Sends the prepared frame to every node of `targets` while it receives one data frame of the
    // same step and op from every node of `sources`. Throws StepError. The payloads stay valid
    // until release().
    const std::vector<Received>& transfer(FrameKind kind, uint32_t op,
                                          const std::vector<int>& targets,
                                          const std::vector<int>& sources, Traffic traffic);
    void release();

    // Followers: waits without bound for node 0's next step frame. Returns null when node 0 has
    // left, or when `wake_descriptor` (or -1) becomes readable (then *woken is set).
    const Received* await_step(int wake_descriptor, bool* woken);

    void begin_step(uint32_t step);
    // Between operations: tells waiting peers that this node goes on, at most every 200 ms.
    void report_progress(uint32_t op);
    // Tells every peer why this node gives up. Never throws.
    void abort(const std::string& reason) noexcept;
    void leave() noexcept;

    uint32_t step() const { return step_; }
    // Goes up with every sign of a peer's progress; any thread may look.
    uint32_t activity() const { return activity_.load(std::memory_order_relaxed); }
    WireCounters counters;

  private:
    struct Link;
    void pump(Link& link);
    void parse(Link& link);
    bool flush(Link& link);
    void wait(const std::vector<int>& targets, const std::vector<int>& sources, double* spin_until);
    bool doze(const std::vector<Link*>& links, int extra, int milliseconds);
    void check_stalls(const std::vector<int>& targets, const std::vector<int>& sources);
    void send_progress(uint32_t op, int waiting_for, double stalled);
    void post(Link& link, const uint8_t* data, size_t bytes);
    void hear(Link& link, double time);
    [[noreturn]] void gone(Link& link);
    FrameHeader header(FrameKind kind, uint32_t op, size_t bytes) const;

    const int node_;
    const std::vector<std::string> names_;
    const uint32_t generation_;
    const double stall_seconds_;
    const bool spin_;
    uint32_t step_ = 0, op_ = 0;
    double last_report_ = 0;
    bool left_ = false;
    int blind_ = 0;
    std::atomic<uint32_t> activity_{0};
    std::vector<std::unique_ptr<Link>> links_;  // by node; null for this one
    std::vector<uint8_t> frame_;
    std::vector<Received> received_;
    Received step_frame_{};
};

}  // namespace bw
