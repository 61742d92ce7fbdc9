// Exchange: messages between the nodes of one mesh, with bounded waits. One computing thread uses
// it. Knows no programs: an operation is a number here.
#pragma once
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "exchange/frame.h"
#include "exchange/link.h"
#include "exchange/transport.h"
#include "exchange/usual_wait.h"

namespace bw {

class Exchange {
  public:
    // `names[i]` names node i in messages. A mesh in which nobody that this node waits for, at
    // first or second hand, does any work for `stall_seconds` is an error; and so is a step whose
    // messages trickle: in which this node has waited for nobody who computes, for as long and for
    // ten times what is usual. `spin` off where threads outnumber processors. Throws
    // std::invalid_argument.
    Exchange(int node, std::vector<std::string> names, uint32_t generation, double stall_seconds,
             bool spin);
    ~Exchange();
    Exchange(const Exchange&) = delete;
    Exchange& operator=(const Exchange&) = delete;

    // Throws std::invalid_argument where there is no such peer or it has a link already.
    void add_link(int peer, std::unique_ptr<Transport> transport);
    // Whether every other node has a link.
    bool complete() const { return peers_.size() + 1 == links_.size(); }
    // Payloads that a peer may send at most, so that none can make this node hoard memory.
    void limit(size_t step_bytes, size_t data_bytes);
    int node() const { return context_.node; }
    // Of this node, in messages.
    const std::string& name() const { return context_.names[static_cast<size_t>(node())]; }
    int num_nodes() const { return static_cast<int>(context_.names.size()); }
    bool spin() const { return spin_; }

    struct Received {
        int node;
        const uint8_t* payload;
        size_t bytes;
    };

    // Sends a payload to every node of `targets` as soon as it goes. The FrameHeader's room before
    // it is the caller's and is written here; neither may change before drain() or transfer().
    void send(uint8_t* payload, size_t bytes, FrameKind kind, uint32_t op, uint16_t part,
              const std::vector<int>& targets, Traffic traffic);
    // Waits for one data frame of this step, op and part from every node of `sources`, while what
    // is queued leaves. Payloads stay valid until the next receive() or release().
    const std::vector<Received>& receive(uint32_t op, uint16_t part,
                                         const std::vector<int>& sources);
    // Waits until everything has left.
    void drain();
    void release();

    // A payload of the exchange's own, to fill and hand to transfer().
    uint8_t* prepare(size_t bytes);
    // Sends the prepared payload to every node of `targets`, receives from every node of
    // `sources`, and waits for both. Throws StepError.
    const std::vector<Received>& transfer(FrameKind kind, uint32_t op,
                                          const std::vector<int>& targets,
                                          const std::vector<int>& sources, Traffic traffic);

    // Followers: waits for node 0's next step frame, without bound until it begins to come. Returns
    // null when node 0 has left, or when `wake_descriptor` (or -1) becomes readable (then *woken is
    // set).
    const Received* await_step(int wake_descriptor, bool* woken);

    void begin_step(uint32_t step);
    // Data frames of these steps but the one at hand, so many on from `first`, may come from any
    // peer, one from each at most: they are kept until receive() is called for them, and do not
    // keep this node from hearing what comes behind them.
    void keep_early(uint32_t first, uint32_t count);
    // In the midst of computing: moves what can move, and tells waiting peers a few times a second
    // that this node goes on. Errors wait for the next receive() or drain().
    void report_progress() noexcept;
    // Tells every peer why this node gives up. Never throws.
    void abort(const std::string& reason) noexcept;
    void leave() noexcept;
    // The owner of payloads that were sent is about to end.
    void forget_unsent() noexcept;

    uint32_t step() const { return step_; }
    const WireCounters& counters() const { return context_.counters; }
    // Goes up with every sign of a peer's work; any thread may look.
    uint32_t activity() const { return context_.activity.load(std::memory_order_relaxed); }
    size_t buffer_bytes() const;

  private:
    // Waits for frames from `sources` and, with `drained`, until everything has left.
    void settle(const std::vector<int>& sources, bool drained);
    bool back_off(const std::vector<Link*>& links, int extra, int milliseconds);
    void listen();
    void listen_ahead();
    bool is_early(const Link&) const;
    void check_stalls(const std::vector<int>& sources, double since);
    void note_wait(int culprit, double time, double bound);
    double idle_seconds(int node, double since, double time, int* culprit) const;
    void send_progress(int waiting_for);
    Link& link(int node) { return *links_[static_cast<size_t>(node)]; }
    const Link& link(int node) const { return *links_[static_cast<size_t>(node)]; }
    std::string stalled(int node, double seconds) const;
    FrameHeader header(FrameKind kind, uint32_t op, uint16_t part) const;
    void seal(FrameHeader header, uint8_t* payload, size_t bytes, bool on_wire) const;

    LinkContext context_;
    const double stall_seconds_, report_every_;
    const bool spin_;
    uint32_t step_ = 0;
    uint32_t early_first_ = 0, early_count_ = 0;
    double last_report_ = 0;
    bool left_ = false;
    double blind_since_ = 0;
    // Of the step: seconds of waits for nobody who computes, in all and by whom they were for;
    // until when they have been counted; and the bytes that had moved before it.
    double waited_ = 0, counted_until_ = 0;
    std::vector<double> waited_for_;
    uint64_t moved_before_ = 0;
    UsualWait usual_;
    std::exception_ptr trouble_;                // what report_progress() could not say
    std::vector<std::unique_ptr<Link>> links_;  // by node; null for this one
    std::vector<Link*> peers_;
    std::vector<uint8_t> frame_;
    size_t prepared_ = 0;
    std::vector<Received> received_;
    Received step_frame_{};
};

}  // namespace bw
