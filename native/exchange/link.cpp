#include "exchange/link.h"

#include <algorithm>
#include <cstring>

#include "core/clock.h"
#include "core/text.h"

namespace bw {

namespace {

constexpr size_t kReadAtOnce = 64 << 10;
constexpr size_t kReadAhead = 8 << 20;
constexpr size_t kMostControl = 64 << 10;
constexpr size_t kLongestReason = 2000;
constexpr int kLastFrames = 64;
// A link of 10 Mbit/s carries them in 13 ms; whoever needs the stall bound for them has stalled.
constexpr size_t kWorkBytes = 16 << 10;

bool is_work(const FrameHeader& header) {
    return header.kind == static_cast<uint16_t>(FrameKind::data) ||
           header.kind == static_cast<uint16_t>(FrameKind::step);
}

size_t most_bytes(const LinkContext& context, FrameKind kind) {
    switch (kind) {
        case FrameKind::step:
            return context.most_step_bytes;
        case FrameKind::data:
            return context.most_data_bytes;
        case FrameKind::abort:
            return kMostControl;
        default:
            return 0;
    }
}

}  // namespace

void Link::note_progress() {
    progressed_at = now();
    context_.activity.store(context_.activity.load(std::memory_order_relaxed) + 1,
                            std::memory_order_relaxed);
}

void Link::note_work() {
    context_.work++;
    note_progress();
}

// Bytes count as work some KB at a time: a peer that sends or takes one now and then does none.
void Link::note_bytes(size_t bytes, size_t& uncounted) {
    uncounted += bytes;
    if (uncounted < kWorkBytes) return;
    uncounted = 0;
    note_work();
}

void Link::damaged() const {
    throw StepError("the link from " + name() + " delivers damaged data to " +
                    context_.names[static_cast<size_t>(context_.node)] +
                    " (a checksum is wrong): check its cables, adapters and switches");
}

void Link::tampered() const {
    throw StepError("the link from " + name() + " to " +
                    context_.names[static_cast<size_t>(context_.node)] +
                    " was tampered with or is damaged: what came is not what was sent");
}

// A header among the bytes that have come. Its checksum comes first: nothing else of a damaged one
// means anything.
FrameHeader Link::read_header(size_t at) const {
    FrameHeader h;
    std::memcpy(&h, in_.data() + at, sizeof h);
    if (h.header_sum != header_sum(h)) damaged();
    if (h.magic != kMagic || h.node != node || h.generation != context_.generation)
        throw StepError(name() + " sent a frame that does not belong to this mesh");
    if (h.kind < 1 || h.kind > static_cast<uint16_t>(FrameKind::bye))
        throw StepError(name() + " sent a frame of an unknown kind");
    const auto kind = static_cast<FrameKind>(h.kind);
    if (h.bytes > most_bytes(context_, kind))
        throw StepError(name() + " sent a frame of " + std::to_string(h.bytes) +
                        " bytes, more than any step of this model needs");
    if (kind == FrameKind::progress && h.part > context_.names.size())
        throw StepError(name() + " says that it waits for a node that does not exist");
    return h;
}

void Link::begin_frame() {
    front = read_header(begin_);
    begun_ = true;
    summed_ = coming_ = 0;
    payload_sum_ = 0;
    if (!is_work(front)) return;  // what a progress frame is worth it says itself
    if (partial_payload()) note_work();
    if (!heard()) waits_for = -1;  // whatever it waited for, it went on
}

// True where all of the payload is there, and as it was sent. Checksums go on as bytes come, so
// that the end of a long payload is soon told.
bool Link::take_payload() {
    const size_t there = std::min<size_t>(end_ - begin_ - sizeof front, front.bytes);
    if (on_wire) payload_sum_ = crc32c(payload_sum_, payload() + summed_, there - summed_);
    if (is_work(front)) note_bytes(there - summed_, coming_);
    summed_ = there;
    if (partial_payload()) return false;
    if (on_wire && payload_sum_ != front.payload_sum) damaged();
    return true;
}

// A control frame that is whole.
void Link::hear(const FrameHeader& frame, const uint8_t* words) {
    switch (static_cast<FrameKind>(frame.kind)) {
        case FrameKind::progress: {
            const uint64_t mark = (static_cast<uint64_t>(frame.step) << 32) | frame.op;
            if (mark != mark_) {
                note_progress();
                if (frame.part == 0) computed_at = progressed_at;
            }
            mark_ = mark;
            waits_for = static_cast<int>(frame.part) - 1;
            break;
        }
        case FrameKind::abort:
            if (frame.bytes == 0) throw StepError(name() + " gave up without a reason");
            throw StepError(printable(words, frame.bytes, kLongestReason));
        default:
            ended = true;
    }
}

// The frame at the front.
void Link::drop_frame() {
    const size_t bytes = sizeof front + front.bytes;
    begin_ += bytes;
    heard_ -= std::min(heard_, bytes);
}

// Takes control frames off the front; stops at a data or step frame, complete or not.
void Link::parse() {
    while (!ready && end_ - begin_ >= sizeof(FrameHeader)) {
        if (!begun_) begin_frame();
        if (!take_payload()) return;
        begun_ = false;
        if (is_work(front)) {
            note_work();
            ready = true;
            return;
        }
        if (!heard()) hear(front, payload());
        drop_frame();
    }
    if (begin_ == end_) begin_ = end_ = 0;
}

void Link::make_room() {
    if (in_.size() - end_ >= kReadAtOnce / 2) return;
    if (begin_ > 0) {
        std::memmove(in_.data(), in_.data() + begin_, end_ - begin_);
        end_ -= begin_;
        begin_ = 0;
    }
    // Grows with what has come, not with what a header claims.
    if (in_.size() - end_ < kReadAtOnce) in_.resize(std::max(end_ + kReadAtOnce, 2 * end_));
}

// Bytes that have come.
size_t Link::receive() {
    make_room();
    const int64_t moved = transport->receive(in_.data() + end_, in_.size() - end_);
    note_sealing();
    if (moved == kDamaged) damaged();
    if (moved == kTampered) tampered();
    if (moved < 0) closed = true;
    if (moved <= 0) return 0;
    end_ += static_cast<size_t>(moved);
    context_.moved += static_cast<uint64_t>(moved);
    return static_cast<size_t>(moved);
}

void Link::pump() {
    while (!ready && receive() > 0) parse();
}

void Link::read_ahead() {
    pump();
    while (ready && !taken && end_ - begin_ < kReadAhead) {
        const size_t moved = receive();
        if (moved == 0) return;
        note_bytes(moved, ahead_);
    }
}

// Whoever has sent its part of an operation waits for others behind it, or has died: its words lie
// behind a frame that is not taken before everybody's is there.
void Link::listen_ahead() {
    if (!ready || taken) return;
    transport->finish_wait();  // nobody sleeps on it meanwhile, and memory does not tell of an end
    read_ahead();
    heard_ = std::max(heard_, sizeof front + front.bytes);
    while (end_ - begin_ - heard_ >= sizeof(FrameHeader)) {
        const size_t at = begin_ + heard_;
        const FrameHeader frame = read_header(at);
        if (end_ - at < sizeof frame + frame.bytes) return;
        const uint8_t* words = in_.data() + at + sizeof frame;
        if (is_work(frame))
            waits_for = -1;
        else if (on_wire && crc32c(0, words, frame.bytes) != frame.payload_sum)
            damaged();
        else
            hear(frame, words);
        heard_ += sizeof frame + frame.bytes;
    }
}

void Link::drop_front() {
    drop_frame();
    ready = taken = false;
    parse();
}

void Link::set_aside() {
    early_.push_back({front, {payload(), payload() + front.bytes}});
    drop_front();
}

void Link::gone() {
    if (!ended) {
        if (ready) drop_front();  // its words may stand behind a frame that nobody will read
        closed = false;
        for (int i = 0; i < kLastFrames && !closed; i++) {
            pump();
            if (!ready) break;
            drop_front();
        }
    }
    throw StepError(name() + " closed its connection to " +
                    context_.names[static_cast<size_t>(context_.node)]);
}

void Link::queue(const uint8_t* frame, size_t bytes, Traffic traffic) {
    out_.push_back({frame, bytes, traffic, false});
}

void Link::post(const uint8_t* frame, size_t bytes) {
    if (closed || control_.size() > kMostControl) return;
    control_.insert(control_.end(), frame, frame + bytes);
    flush();
}

void Link::note_sealing() {
    const double so_far = transport->sealing_seconds();
    context_.counters.sealing_seconds += so_far - sealed_;
    sealed_ = so_far;
}

int64_t Link::push(const uint8_t* data, size_t bytes, Traffic traffic) {
    const int64_t moved = transport->send(data, bytes);
    note_sealing();
    if (moved < 0) closed = true;
    if (moved > 0) {
        context_.moved += static_cast<uint64_t>(moved);
        context_.counters.bytes[static_cast<size_t>(traffic)] +=
            transport->wire_bytes(static_cast<size_t>(moved));
    }
    return moved;
}

bool Link::flush() {
    for (;;) {
        const bool in_frame = !out_.empty() && out_.front().begun;
        if (!in_frame && !control_.empty()) {
            const int64_t moved = push(control_.data(), control_.size(), Traffic::control);
            if (moved <= 0) return false;
            control_.erase(control_.begin(), control_.begin() + moved);
            continue;
        }
        if (out_.empty()) {
            held_ = !transport->flush();
            return !held_;
        }
        Outgoing& next = out_.front();
        const int64_t moved = push(next.data, next.left, next.traffic);
        if (moved <= 0) return false;
        next.begun = true;
        next.data += moved;
        next.left -= static_cast<size_t>(moved);
        // The reader takes bytes; buffers in between are bounded.
        note_bytes(next.left == 0 ? kWorkBytes : static_cast<size_t>(moved), sent_);
        if (next.left == 0) out_.pop_front();
    }
}

void Link::forget_unsent(bool all) {
    const bool keep = !all && !out_.empty() && out_.front().begun;
    out_.erase(out_.begin() + (keep ? 1 : 0), out_.end());
}

}  // namespace bw
