// Link: frames to and from one peer over a transport. Knows the frames' order and whom they are
// from; knows no deadlines and no other peers.
#pragma once
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "exchange/frame.h"
#include "exchange/transport.h"

namespace bw {

// What the links of a node share.
struct LinkContext {
    int node;
    std::vector<std::string> names;
    uint32_t generation;
    // The largest payloads that a peer may send.
    size_t most_step_bytes, most_data_bytes;
    WireCounters counters;
    uint64_t moved = 0;                 // bytes, both ways
    uint32_t work = 0;                  // goes up with what this node computes, sends and receives
    std::atomic<uint32_t> activity{0};  // goes up with every sign of a peer's work
};

class Link {
  public:
    Link(LinkContext& context, int node, std::unique_ptr<Transport> transport)
        : node(node),
          transport(std::move(transport)),
          on_wire(this->transport->on_wire()),
          context_(context) {}

    // --- receiving ---
    // Takes what there is up to one complete data or step frame, which stays at the front.
    void pump();
    // Takes what there is behind that frame too, within bounds. Only while nobody reads payload().
    void read_ahead();
    // The same, and hears what the peer says of itself there: that it waits, goes or gives up,
    // which is thrown.
    void listen_ahead();
    const uint8_t* payload() const { return in_.data() + begin_ + sizeof(FrameHeader); }
    // Whether a frame has begun to come that is not complete.
    bool partial() const { return !ready && (begin_ != end_ || transport->partial()); }
    // Takes the frame off the front and looks at the next.
    void drop_front();
    // Throws the reason that the peer gave for leaving, if it gave one.
    [[noreturn]] void gone();

    // A data frame that came before anybody waited for it, and what it carried.
    struct Early {
        FrameHeader header;
        std::vector<uint8_t> payload;
    };
    // Copies the frame at the front, so that what comes behind it can be heard.
    void set_aside();
    // The first frame that was set aside, where it is of this step; else null.
    const Early* early(uint32_t step) const {
        return early_.empty() || early_.front().header.step != step ? nullptr : &early_.front();
    }
    size_t num_early() const { return early_.size(); }
    void drop_early() { early_.pop_front(), early_taken = false; }
    bool early_taken = false;  // somebody reads the first of them

    bool ready = false;   // a complete data or step frame is at the front: `front`
    bool taken = false;   // and somebody reads it
    bool closed = false;  // the transport has ended
    bool ended = false;   // the peer has said goodbye
    FrameHeader front{};  // of the frame that comes or has come

    // --- sending ---
    // A frame that stays where it is until it has left.
    void queue(const uint8_t* frame, size_t bytes, Traffic traffic);
    // A control frame, copied; goes before queued frames that have not begun to leave.
    void post(const uint8_t* frame, size_t bytes);
    // True once everything has left.
    bool flush();
    bool sending() const { return !out_.empty() || !control_.empty() || held_; }
    bool sending_data() const { return !out_.empty() || held_; }
    // Drops queued frames that have not begun to leave; with `all`, the rest of that one too.
    void forget_unsent(bool all);
    size_t buffer_bytes() const { return in_.size(); }

    const int node;
    const std::unique_ptr<Transport> transport;
    const bool on_wire;
    double progressed_at = 0;  // when the peer last showed work
    double computed_at = 0;    // when it last said that it computes
    int waits_for = -1;        // whom it says that it waits for

  private:
    struct Outgoing {
        const uint8_t* data;
        size_t left;
        Traffic traffic;
        bool begun;
    };
    const std::string& name() const { return context_.names[static_cast<size_t>(node)]; }
    bool partial_payload() const { return end_ - begin_ < sizeof front + front.bytes; }
    void parse();
    FrameHeader read_header(size_t at) const;
    void begin_frame();
    bool take_payload();
    void hear(const FrameHeader& frame, const uint8_t* words);
    bool heard() const { return heard_ > 0; }
    void drop_frame();
    size_t receive();
    void make_room();
    void note_progress();
    void note_work();
    void note_bytes(size_t bytes, size_t& uncounted);
    [[noreturn]] void damaged() const;
    [[noreturn]] void tampered() const;
    void note_sealing();
    int64_t push(const uint8_t* data, size_t bytes, Traffic traffic);

    LinkContext& context_;
    // Received bytes [begin, end).
    std::vector<uint8_t> in_;
    size_t begin_ = 0, end_ = 0;
    size_t heard_ = 0;    // of them, in whole frames: their control frames have been heard
    bool begun_ = false;  // `front` has been read
    size_t summed_ = 0;   // bytes of its payload that the sum is of
    uint32_t payload_sum_ = 0;
    // Bytes that do not count as work yet: of that frame, behind it, and sent.
    size_t coming_ = 0, ahead_ = 0, sent_ = 0;
    std::vector<uint8_t> control_;
    std::deque<Outgoing> out_;
    std::deque<Early> early_;
    bool held_ = false;  // the transport has taken more than has left
    uint64_t mark_ = 0;  // of the last progress frame
    double sealed_ = 0;  // what the transport had spent on it when that was counted last
};

}  // namespace bw
