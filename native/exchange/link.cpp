#include "exchange/link.h"

#include <algorithm>
#include <cstring>

#include "core/clock.h"

namespace bw {

namespace {

constexpr size_t kReadAtOnce = 64 << 10;
constexpr size_t kReadAhead = 8 << 20;
constexpr size_t kMostControl = 64 << 10;
constexpr size_t kLongestReason = 2000;
constexpr int kLastFrames = 64;

// A peer's words as ASCII: they go into sentences and terminals.
std::string printable(const uint8_t* text, size_t bytes) {
    std::string words(reinterpret_cast<const char*>(text), bytes);
    for (char& c : words)
        if (c < 32 || c > 126) c = '?';
    return words;
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

void Link::hear() {
    heard = now();
    context_.activity.store(context_.activity.load(std::memory_order_relaxed) + 1,
                            std::memory_order_relaxed);
}

// Takes control frames off the front; stops at a data or step frame, complete or not.
void Link::parse() {
    const std::string& name = context_.names[static_cast<size_t>(node)];
    while (!ready && end_ - begin_ >= sizeof(FrameHeader)) {
        FrameHeader h;
        std::memcpy(&h, in_.data() + begin_, sizeof h);
        if (h.magic == kMagic && (h.kind < 1 || h.kind > static_cast<uint16_t>(FrameKind::bye)))
            throw StepError(name + " sent a frame of an unknown kind");
        const auto kind = static_cast<FrameKind>(h.kind);
        if (h.magic != kMagic || h.node != node || h.generation != context_.generation)
            throw StepError(name + " sent a frame that does not belong to this mesh");
        if (h.bytes > most_bytes(context_, kind))
            throw StepError(name + " sent a frame of " + std::to_string(h.bytes) +
                            " bytes, more than any step of this model needs");
        // Data on its way is work done; what a progress frame is worth it says itself.
        if (kind == FrameKind::data || kind == FrameKind::step) {
            context_.work++;
            hear();
            waits_for = -1;  // whatever it waited for, it went on
        }
        if (end_ - begin_ < sizeof h + h.bytes) return;
        const uint8_t* text = in_.data() + begin_ + sizeof h;
        switch (kind) {
            case FrameKind::progress: {
                const uint64_t mark = (static_cast<uint64_t>(h.step) << 32) | h.op;
                if (mark != mark_) hear();
                mark_ = mark;
                waits_for = static_cast<int>(h.waiting) - 1;
                break;
            }
            case FrameKind::abort:
                throw StepError(printable(text, std::min<size_t>(h.bytes, kLongestReason)));
            case FrameKind::bye:
                ended = true;
                break;
            case FrameKind::step:
            case FrameKind::data:
                front = h;
                ready = true;
                return;
        }
        begin_ += sizeof h + h.bytes;
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

// True where bytes have come.
bool Link::receive() {
    make_room();
    const int64_t moved = transport->receive(in_.data() + end_, in_.size() - end_);
    if (moved < 0) closed = true;
    if (moved <= 0) return false;
    end_ += static_cast<size_t>(moved);
    return true;
}

void Link::pump() {
    while (!ready && receive()) parse();
}

void Link::read_ahead() {
    pump();
    while (ready && !taken && end_ - begin_ < kReadAhead && receive()) {
        context_.work++;
        hear();
    }
}

void Link::drop_front() {
    begin_ += sizeof(FrameHeader) + front.bytes;
    ready = taken = false;
    parse();
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
    throw StepError(context_.names[static_cast<size_t>(node)] + " closed its connection to " +
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

int64_t Link::push(const uint8_t* data, size_t bytes, Traffic traffic) {
    const int64_t moved = transport->send(data, bytes);
    if (moved < 0) closed = true;
    if (moved > 0)
        context_.counters.bytes[static_cast<size_t>(traffic)] += static_cast<uint64_t>(moved);
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
        if (out_.empty()) return true;
        Outgoing& next = out_.front();
        const int64_t moved = push(next.data, next.left, next.traffic);
        if (moved <= 0) return false;
        context_.work++;
        hear();  // the reader takes bytes; buffers in between are bounded
        next.begun = true;
        next.data += moved;
        next.left -= static_cast<size_t>(moved);
        if (next.left == 0) out_.pop_front();
    }
}

void Link::forget_unsent(bool all) {
    const bool keep = !all && !out_.empty() && out_.front().begun;
    out_.erase(out_.begin() + (keep ? 1 : 0), out_.end());
}

}  // namespace bw
