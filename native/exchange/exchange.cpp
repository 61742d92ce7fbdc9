#include "exchange/exchange.h"

#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "core/clock.h"
#include "core/threads.h"

namespace bw {

namespace {
constexpr uint32_t kMagic = 0x31565742;  // "BWV1"
constexpr size_t kMaxPayload = size_t{1} << 30;
constexpr size_t kReadAhead = 64 << 10;
constexpr double kReportEvery = 0.2;
constexpr double kSpinSeconds = 0.002;
constexpr int kLastFrames = 64;
constexpr size_t kLongestReason = 2000;
constexpr int kBlindYields = 100;
constexpr double kAbortSeconds = 0.2;
// A peer that itself waits for a third node reports later than that node's neighbours notice.
constexpr double kSecondHandGrace = 1.5;
size_t most_bytes(FrameKind kind) {
    switch (kind) {
        case FrameKind::step:
        case FrameKind::data:
            return kMaxPayload;
        case FrameKind::abort:
            return 64 << 10;
        default:
            return 0;
    }
}

// A peer's words as ASCII: they go into sentences and terminals.
std::string printable(const char* text, size_t bytes) {
    std::string words(text, bytes);
    for (char& c : words)
        if (c < 32 || c > 126) c = '?';
    return words;
}

}  // namespace

struct Exchange::Link {
    int node = 0;
    std::unique_ptr<Transport> transport;
    // Received bytes [begin, end); a complete data or step frame at the front stays until taken.
    std::vector<uint8_t> in;
    size_t begin = 0, end = 0;
    bool ready = false, taken = false, closed = false, ended = false;
    FrameHeader front{};
    // Bytes of control frames that did not fit the socket yet; they go before anything else.
    std::vector<uint8_t> pending;
    // The frame at hand.
    const uint8_t* out = nullptr;
    size_t out_left = 0;
    // Progress as last heard.
    double heard = 0;
    uint64_t mark = 0;
    bool second_hand = false;
};

Exchange::Exchange(int node, std::vector<std::string> names, uint32_t generation,
                   double stall_seconds, bool spin)
    : node_(node),
      names_(std::move(names)),
      generation_(generation),
      stall_seconds_(stall_seconds),
      spin_(spin),
      links_(names_.size()) {}

Exchange::~Exchange() { leave(); }

void Exchange::add_link(int peer, std::unique_ptr<Transport> transport) {
    auto link = std::make_unique<Link>();
    link->node = peer;
    link->transport = std::move(transport);
    links_.at(static_cast<size_t>(peer)) = std::move(link);
}

FrameHeader Exchange::header(FrameKind kind, uint32_t op, size_t bytes) const {
    return {kMagic,
            static_cast<uint16_t>(kind),
            static_cast<uint16_t>(node_),
            generation_,
            step_,
            op,
            0,
            0,
            static_cast<uint32_t>(bytes)};
}

uint8_t* Exchange::prepare(size_t bytes) {
    if (bytes > kMaxPayload) throw StepError("a message of more than 1 GiB is too large to send");
    if (frame_.size() < sizeof(FrameHeader) + bytes) frame_.resize(sizeof(FrameHeader) + bytes);
    FrameHeader h = header(FrameKind::data, 0, bytes);
    std::memcpy(frame_.data(), &h, sizeof h);
    return frame_.data() + sizeof h;
}

void Exchange::shrink(size_t bytes) {
    FrameHeader h = header(FrameKind::data, 0, bytes);
    std::memcpy(frame_.data(), &h, sizeof h);
}

void Exchange::hear(Link& link, double time) {
    link.heard = std::max(link.heard, time);
    activity_.store(activity_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

// Throws the reason that the peer gave for leaving, if it gave one.
void Exchange::gone(Link& link) {
    if (!link.ended) {
        if (link.ready) {  // its words may stand behind a frame that nobody will read any more
            link.begin += sizeof(FrameHeader) + link.front.bytes;
            link.ready = false;
            parse(link);
        }
        link.closed = false;
        for (int i = 0; i < kLastFrames && !link.closed; i++) {
            pump(link);
            if (!link.ready) break;
            link.begin += sizeof(FrameHeader) + link.front.bytes;
            link.ready = false;
            parse(link);
        }
    }
    throw StepError(names_[static_cast<size_t>(link.node)] + " closed its connection to " +
                    names_[static_cast<size_t>(node_)]);
}

// Takes control frames off the front; stops at a data or step frame, complete or not.
void Exchange::parse(Link& link) {
    while (!link.ready && link.end - link.begin >= sizeof(FrameHeader)) {
        FrameHeader h;
        std::memcpy(&h, link.in.data() + link.begin, sizeof h);
        if (h.magic == kMagic && (h.kind < 1 || h.kind > static_cast<uint16_t>(FrameKind::bye)))
            throw StepError(names_[static_cast<size_t>(link.node)] +
                            " sent a frame of an unknown kind");
        if (h.magic != kMagic || h.node != link.node || h.generation != generation_ ||
            h.bytes > most_bytes(static_cast<FrameKind>(h.kind)))
            throw StepError(names_[static_cast<size_t>(link.node)] +
                            " sent a frame that does not belong to this mesh");
        const size_t whole = sizeof h + h.bytes;
        const auto kind = static_cast<FrameKind>(h.kind);
        // Data on its way is progress; what a progress frame is worth it says itself.
        if (kind == FrameKind::data || kind == FrameKind::step) hear(link, now());
        if (link.end - link.begin < whole) {
            return;
        }
        switch (kind) {
            case FrameKind::progress: {
                uint64_t mark = (static_cast<uint64_t>(h.step) << 32) | h.op;
                double since = now();
                link.second_hand = h.waiting != 0 && h.waiting != static_cast<uint32_t>(node_) + 1;
                if (mark != link.mark)
                    hear(link, since);
                else if (link.second_hand && since - 1e-3 * h.stalled_ms > link.heard)
                    hear(link, since - 1e-3 * h.stalled_ms);
                link.mark = mark;
                break;
            }
            case FrameKind::abort: {
                auto* text = reinterpret_cast<const char*>(link.in.data() + link.begin + sizeof h);
                throw StepError(printable(text, std::min<size_t>(h.bytes, kLongestReason)));
            }
            case FrameKind::bye:
                link.ended = true;
                break;
            case FrameKind::step:
            case FrameKind::data:
                link.front = h;
                link.ready = true;
                return;
        }
        link.begin += whole;
    }
    if (link.begin == link.end) link.begin = link.end = 0;
}

// Receives what there is, up to one complete data frame.
void Exchange::pump(Link& link) {
    while (!link.ready) {
        if (link.in.size() - link.end < kReadAhead / 2) {
            if (link.begin > 0) {
                std::memmove(link.in.data(), link.in.data() + link.begin, link.end - link.begin);
                link.end -= link.begin;
                link.begin = 0;
            }
            // Grows with what has come, not with what a header claims.
            if (link.in.size() - link.end < kReadAhead)
                link.in.resize(std::max(link.end + kReadAhead, 2 * link.end));
        }
        int64_t moved =
            link.transport->receive(link.in.data() + link.end, link.in.size() - link.end);
        if (moved == 0) return;
        if (moved < 0) {
            link.closed = true;
            return;
        }
        link.end += static_cast<size_t>(moved);
        parse(link);
    }
}

bool Exchange::flush(Link& link) {
    while (!link.pending.empty()) {
        int64_t moved = link.transport->send(link.pending.data(), link.pending.size());
        if (moved < 0) link.closed = true;
        if (moved <= 0) return false;
        counters.all_bytes += static_cast<uint64_t>(moved);
        link.pending.erase(link.pending.begin(), link.pending.begin() + moved);
    }
    while (link.out_left > 0) {
        int64_t moved = link.transport->send(link.out, link.out_left);
        if (moved < 0) {
            link.closed = true;
            return false;
        }
        if (moved == 0) return false;
        counters.all_bytes += static_cast<uint64_t>(moved);
        hear(link, now());  // the reader takes bytes; buffers in between are bounded
        link.out += moved;
        link.out_left -= static_cast<size_t>(moved);
    }
    return true;
}

// Control frames never split a data frame: with one half sent they wait behind it.
void Exchange::post(Link& link, const uint8_t* data, size_t bytes) {
    if (link.closed || link.out_left > 0 || link.pending.size() > 65536) return;
    counters.bytes[static_cast<size_t>(Traffic::control)] += bytes;
    link.pending.insert(link.pending.end(), data, data + bytes);
    flush(link);
}

void Exchange::send_progress(uint32_t op, int waiting_for, double stalled) {
    FrameHeader h = header(FrameKind::progress, op, 0);
    h.waiting = static_cast<uint32_t>(waiting_for + 1);
    h.stalled_ms = static_cast<uint32_t>(std::min(stalled, 1e6) * 1e3);
    for (auto& link : links_)
        if (link) post(*link, reinterpret_cast<const uint8_t*>(&h), sizeof h);
    last_report_ = now();
}

void Exchange::report_progress(uint32_t op) {
    op_ = op;
    if (names_.size() > 1 && now() - last_report_ > kReportEvery) send_progress(op, -1, 0.0);
}

void Exchange::begin_step(uint32_t step) {
    step_ = step;
    op_ = 0;
}

void Exchange::check_stalls(const std::vector<int>& targets, const std::vector<int>& sources) {
    const double time = now();
    double worst = 0;
    int culprit = -1;
    auto look = [&](int node, bool done) {
        if (done) return;
        Link& link = *links_[static_cast<size_t>(node)];
        if (link.closed) gone(link);
        double quiet = time - link.heard - (link.second_hand ? kSecondHandGrace : 0.0);
        if (culprit < 0 || quiet > worst) {
            worst = quiet;
            culprit = node;
        }
    };
    for (int node : sources) look(node, links_[static_cast<size_t>(node)]->ready);
    for (int node : targets) look(node, links_[static_cast<size_t>(node)]->out_left == 0);
    if (culprit < 0) return;
    if (worst > stall_seconds_) {
        char text[64];
        std::snprintf(text, sizeof text, " made no progress for %.1f s", worst);
        throw StepError(names_[static_cast<size_t>(culprit)] + text);
    }
    if (time - last_report_ > kReportEvery) send_progress(op_, culprit, std::max(worst, 0.0));
}

// Spins for a bounded time, then gives the processor away until something may move.
void Exchange::wait(const std::vector<int>& targets, const std::vector<int>& sources,
                    double* spin_until) {
    if (spin_) {
        if (*spin_until == 0) *spin_until = now() + kSpinSeconds;
        if (now() < *spin_until) {
            cpu_pause();
            return;
        }
    }
    std::vector<Link*> awaited;
    for (int node : sources)
        if (!links_[static_cast<size_t>(node)]->ready)
            awaited.push_back(links_[static_cast<size_t>(node)].get());
    for (int node : targets) {
        Link* link = links_[static_cast<size_t>(node)].get();
        const bool known = std::find(awaited.begin(), awaited.end(), link) != awaited.end();
        if (link->out_left > 0 && !known) awaited.push_back(link);
    }
    doze(awaited, -1, 50);
}

// Gives the processor away until one of the links may move, `extra` is readable, or time is up.
// True where `extra` was the reason.
bool Exchange::doze(const std::vector<Link*>& links, int extra, int milliseconds) {
    std::vector<pollfd> polled = {{extra, POLLIN, 0}};
    bool moved = false, timed = false;
    for (Link* link : links) {
        const short events = link->transport->prepare_wait(link->out_left > 0);
        const bool due = !link->ready || link->out_left > 0;
        moved |= events == 0 && due;
        timed |= link->transport->descriptor() < 0;
        polled.push_back({link->transport->descriptor(), events, 0});
    }
    if (timed && !moved) {
        // Nothing to sleep on: let others work, and after a while sleep blindly.
        sched_yield();
        if (!spin_ && ++blind_ > kBlindYields) usleep(20);
        milliseconds = 0;
    }
    poll(polled.data(), static_cast<nfds_t>(polled.size()), moved ? 0 : milliseconds);
    for (Link* link : links) link->transport->finish_wait();
    return polled[0].revents != 0;
}

const std::vector<Exchange::Received>& Exchange::transfer(FrameKind kind, uint32_t op,
                                                          const std::vector<int>& targets,
                                                          const std::vector<int>& sources,
                                                          Traffic traffic) {
    const double start = now();
    op_ = op;
    if (!targets.empty()) {
        FrameHeader h;
        std::memcpy(&h, frame_.data(), sizeof h);
        h = header(kind, op, h.bytes);
        std::memcpy(frame_.data(), &h, sizeof h);
        const uint64_t bytes = (sizeof h + h.bytes) * static_cast<uint64_t>(targets.size());
        counters.bytes[static_cast<size_t>(traffic)] += bytes;
        for (int node : targets) {
            Link& link = *links_[static_cast<size_t>(node)];
            link.out = frame_.data();
            link.out_left = sizeof h + h.bytes;
            link.heard = start;
        }
    }
    for (int node : sources) links_[static_cast<size_t>(node)]->heard = start;
    counters.exchanges++;
    blind_ = 0;
    double sent_at = 0, spin_until = 0;
    for (uint32_t round = 0;; round++) {
        bool sending = false, receiving = false;
        for (int node : targets) {
            Link& link = *links_[static_cast<size_t>(node)];
            if (link.out_left == 0) continue;
            if (!flush(link)) sending = true;
            if (link.closed) gone(link);
            // A peer that computes may not read yet; its control frames still count.
            if (link.out_left > 0 && (round & 15) == 15) pump(link);
        }
        if (!sending && sent_at == 0) sent_at = now();
        for (int node : sources) {
            Link& link = *links_[static_cast<size_t>(node)];
            if (link.ready) continue;
            pump(link);
            if (link.ready) continue;
            if (link.closed || link.ended) gone(link);
            receiving = true;
        }
        if (!sending && !receiving) break;
        if ((round & 255) == 255 || !spin_) {
            for (auto& link : links_)
                if (link && !link->ready && (round & 1023) == 1023) pump(*link);
            check_stalls(targets, sources);
        }
        wait(targets, sources, &spin_until);
        if (spin_until != 0 && now() > spin_until) check_stalls(targets, sources);
    }
    received_.clear();
    for (int node : sources) {
        Link& link = *links_[static_cast<size_t>(node)];
        const FrameHeader& h = link.front;
        if (h.kind != static_cast<uint16_t>(FrameKind::data) || h.step != step_ || h.op != op) {
            char text[160];
            std::snprintf(text, sizeof text,
                          " is at step %u operation %u while this node is at step %u operation %u",
                          h.step, h.op, step_, op);
            throw StepError(names_[static_cast<size_t>(node)] + text);
        }
        link.taken = true;
        received_.push_back({node, link.in.data() + link.begin + sizeof h, h.bytes});
    }
    const double end = now();
    if (sources.empty()) {
        counters.wire_seconds += end - start;
    } else {
        counters.wire_seconds += sent_at - start;
        counters.wait_seconds += end - sent_at;
    }
    return received_;
}

void Exchange::release() {
    for (auto& link : links_) {
        if (!link || !link->taken) continue;
        link->begin += sizeof(FrameHeader) + link->front.bytes;
        link->ready = link->taken = false;
        if (link->begin == link->end) link->begin = link->end = 0;
        parse(*link);
    }
}

const Exchange::Received* Exchange::await_step(int wake_descriptor, bool* woken) {
    *woken = false;
    Link& link = *links_[0];
    const double spin_until = now() + kSpinSeconds;
    uint32_t idle = 0;
    for (;;) {
        pump(link);
        if (link.ready) break;
        if (link.ended || link.closed) return nullptr;
        if (spin_ && now() < spin_until) {
            cpu_pause();
            continue;
        }
        if (link.transport->descriptor() < 0 && ++idle > 200) usleep(1000);
        if (doze({&link}, wake_descriptor, 1000)) {
            *woken = true;
            return nullptr;
        }
    }
    if (link.front.kind != static_cast<uint16_t>(FrameKind::step))
        throw StepError(names_[0] + " sent data before it opened a step");
    step_ = link.front.step;
    link.taken = true;
    step_frame_ = {0, link.in.data() + link.begin + sizeof(FrameHeader), link.front.bytes};
    return &step_frame_;
}

void Exchange::abort(const std::string& whole_reason) noexcept {
    const std::string reason = whole_reason.substr(0, kLongestReason);
    if (left_) return;
    left_ = true;
    std::vector<uint8_t> frame(sizeof(FrameHeader) + reason.size());
    FrameHeader h = header(FrameKind::abort, op_, reason.size());
    std::memcpy(frame.data(), &h, sizeof h);
    std::memcpy(frame.data() + sizeof h, reason.data(), reason.size());
    // A frame that is half sent goes first, if its reader takes it soon.
    const double deadline = now() + kAbortSeconds;
    for (auto& link : links_) {
        if (!link) continue;
        while (!flush(*link) && !link->closed && now() < deadline) usleep(200);
        post(*link, frame.data(), frame.size());
    }
}

void Exchange::leave() noexcept {
    if (left_) return;
    left_ = true;
    FrameHeader h = header(FrameKind::bye, 0, 0);
    for (auto& link : links_)
        if (link) post(*link, reinterpret_cast<const uint8_t*>(&h), sizeof h);
}

}  // namespace bw
