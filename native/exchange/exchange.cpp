#include "exchange/exchange.h"

#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "core/clock.h"
#include "core/threads.h"

namespace bw {

namespace {
constexpr size_t kMaxPayload = size_t{1} << 30;
constexpr size_t kLongestReason = 2000;
// Seconds.
constexpr double kReportEvery = 0.2;  // or five times within the bound for stalls
constexpr double kSpin = 0.002;
constexpr double kListenEvery = 50e-6;  // to peers that nothing is due from
constexpr double kCheckEvery = 0.02;    // for stalls
constexpr double kBlindYields = 100e-6;
constexpr double kAbort = 0.2;
constexpr int kBackOffMilliseconds = 50, kIdleMilliseconds = 1000;

int num(const std::vector<std::string>& names) { return static_cast<int>(names.size()); }
}  // namespace

Exchange::Exchange(int node, std::vector<std::string> names, uint32_t generation,
                   double stall_seconds, bool spin)
    : stall_seconds_(stall_seconds),
      report_every_(std::min(kReportEvery, stall_seconds / 5)),
      spin_(spin),
      links_(names.size()) {
    if (names.empty() || names.size() > kMostNodes || node < 0 || node >= num(names))
        throw std::invalid_argument("node " + std::to_string(node) + " is none of " +
                                    std::to_string(names.size()) + " nodes");
    if (!(stall_seconds > 0)) throw std::invalid_argument("the bound for stalls must be above 0 s");
    context_.node = node;
    waited_for_.resize(names.size());
    context_.names = std::move(names);
    context_.generation = generation;
    context_.most_step_bytes = context_.most_data_bytes = kMaxPayload;
}

Exchange::~Exchange() { leave(); }

void Exchange::add_link(int peer, std::unique_ptr<Transport> transport) {
    if (peer < 0 || peer >= num_nodes() || peer == node() || links_[static_cast<size_t>(peer)])
        throw std::invalid_argument("node " + std::to_string(node()) + " of " +
                                    std::to_string(num_nodes()) + " needs no link to node " +
                                    std::to_string(peer));
    links_[static_cast<size_t>(peer)] =
        std::make_unique<Link>(context_, peer, std::move(transport));
    peers_.push_back(links_[static_cast<size_t>(peer)].get());
}

void Exchange::limit(size_t step_bytes, size_t data_bytes) {
    context_.most_step_bytes = std::min(step_bytes, kMaxPayload);
    context_.most_data_bytes = std::min(data_bytes, kMaxPayload);
}

size_t Exchange::buffer_bytes() const {
    size_t bytes = frame_.size();
    for (const Link* link : peers_) bytes += link->buffer_bytes();
    return bytes;
}

FrameHeader Exchange::header(FrameKind kind, uint32_t op, uint16_t part) const {
    FrameHeader h{};
    h.magic = kMagic;
    h.kind = static_cast<uint16_t>(kind);
    h.node = static_cast<uint16_t>(context_.node);
    h.generation = context_.generation;
    h.step = step_;
    h.op = op;
    h.part = part;
    return h;
}

// Completes a frame: its size and checksums, then the header in the room before the payload.
void Exchange::seal(FrameHeader h, uint8_t* payload, size_t bytes, bool on_wire) const {
    h.bytes = static_cast<uint32_t>(bytes);
    if (on_wire) h.payload_sum = crc32c(0, payload, bytes);
    h.header_sum = header_sum(h);
    std::memcpy(payload - sizeof h, &h, sizeof h);
}

// --- messages ---

void Exchange::send(uint8_t* payload, size_t bytes, FrameKind kind, uint32_t op, uint16_t part,
                    const std::vector<int>& targets, Traffic traffic) {
    if (bytes > kMaxPayload) throw StepError("a message of more than 1 GiB is too large to send");
    bool on_wire = false;
    for (int node : targets) on_wire |= link(node).on_wire;
    seal(header(kind, op, part), payload, bytes, on_wire);
    for (int node : targets) {
        link(node).queue(payload - sizeof(FrameHeader), sizeof(FrameHeader) + bytes, traffic);
        link(node).flush();
    }
}

const std::vector<Exchange::Received>& Exchange::receive(uint32_t op, uint16_t part,
                                                         const std::vector<int>& sources) {
    release();
    context_.counters.exchanges++;
    settle(sources, false);
    received_.clear();
    for (int node : sources) {
        Link& from = link(node);
        const Link::Early* early = from.early(step_);
        const FrameHeader& h = early ? early->header : from.front;
        if (h.kind != static_cast<uint16_t>(FrameKind::data) || h.step != step_ || h.op != op ||
            h.part != part) {
            char text[200];
            std::snprintf(text, sizeof text,
                          " is at step %u operation %u.%u while this node is at step %u operation "
                          "%u.%u",
                          h.step, h.op, h.part, step_, op, part);
            throw StepError(context_.names[static_cast<size_t>(node)] + text);
        }
        (early ? from.early_taken : from.taken) = true;
        received_.push_back({node, early ? early->payload.data() : from.payload(), h.bytes});
    }
    return received_;
}

void Exchange::drain() { settle({}, true); }

void Exchange::release() {
    for (Link* link : peers_) {
        if (link->taken) link->drop_front();
        if (link->early_taken) link->drop_early();
    }
}

uint8_t* Exchange::prepare(size_t bytes) {
    if (bytes > kMaxPayload) throw StepError("a message of more than 1 GiB is too large to send");
    frame_.resize(std::max(frame_.size(), sizeof(FrameHeader) + bytes));
    prepared_ = bytes;
    return frame_.data() + sizeof(FrameHeader);
}

const std::vector<Exchange::Received>& Exchange::transfer(FrameKind kind, uint32_t op,
                                                          const std::vector<int>& targets,
                                                          const std::vector<int>& sources,
                                                          Traffic traffic) {
    if (!targets.empty())
        send(frame_.data() + sizeof(FrameHeader), prepared_, kind, op, 0, targets, traffic);
    const auto& received = receive(op, 0, sources);
    drain();
    return received;
}

const Exchange::Received* Exchange::await_step(int wake_descriptor, bool* woken) {
    *woken = false;
    release();
    Link& leader = link(0);
    const double start = now();
    double begun = 0;  // when the frame that comes began to
    for (;;) {
        leader.pump();
        if (leader.ready) break;
        if (leader.ended || leader.closed) return nullptr;
        const double time = now();
        if (!leader.partial())
            begun = 0;
        else if (begun == 0)
            begun = time;
        const double quiet = time - std::max(begun, leader.progressed_at);
        if (begun > 0 && quiet > stall_seconds_) throw StepError(stalled(0, quiet));
        if (spin_ && time < start + kSpin) {
            cpu_pause();
            continue;
        }
        // A pipe inside the process has nothing to sleep on.
        if (leader.transport->descriptor() < 0 && time > start + kSpin) usleep(1000);
        if (back_off({&leader}, wake_descriptor, kIdleMilliseconds)) {
            *woken = true;
            return nullptr;
        }
    }
    if (leader.front.kind != static_cast<uint16_t>(FrameKind::step))
        throw StepError(context_.names[0] + " sent data before it opened a step");
    if (leader.front.step != step_ + 1)
        throw StepError(context_.names[0] + " opened step " + std::to_string(leader.front.step) +
                        " where step " + std::to_string(step_ + 1) + " was due");
    step_ = leader.front.step;
    leader.taken = true;
    step_frame_ = {0, leader.payload(), leader.front.bytes};
    return &step_frame_;
}

void Exchange::begin_step(uint32_t step) {
    if (context_.moved != moved_before_) usual_.note(context_.moved - moved_before_, waited_);
    moved_before_ = context_.moved;
    waited_ = 0;
    std::fill(waited_for_.begin(), waited_for_.end(), 0.0);
    step_ = step;
}

void Exchange::keep_early(uint32_t first, uint32_t count) {
    early_first_ = first;
    early_count_ = count;
}

bool Exchange::is_early(const Link& link) const {
    const FrameHeader& h = link.front;
    return link.ready && !link.taken && h.kind == static_cast<uint16_t>(FrameKind::data) &&
           h.step != step_ && h.step - early_first_ < early_count_ &&
           link.num_early() < early_count_;
}

// --- waiting ---

// Reads what peers have to say while nothing is due from them: an abort, or progress.
void Exchange::listen() {
    for (Link* link : peers_) {
        link->pump();
        while (is_early(*link)) {
            link->set_aside();
            link->pump();
        }
        if (link->closed && !link->ended) link->gone();
    }
}

void Exchange::listen_ahead() {
    for (Link* link : peers_) {
        link->listen_ahead();
        if (link->closed && !link->ended) link->gone();
    }
}

void Exchange::settle(const std::vector<int>& sources, bool drained) {
    if (trouble_) std::rethrow_exception(trouble_);
    const double start = counted_until_ = now();
    double sent_at = 0, listened = start, checked = start;
    blind_since_ = 0;
    for (;;) {
        bool sending = false, receiving = false;
        for (Link* link : peers_) {
            if (!link->sending()) continue;
            link->flush();
            if (link->closed && link->sending_data()) link->gone();
            sending |= link->sending_data();
        }
        const double time = now();
        if (!sending && sent_at == 0) sent_at = time;
        const bool spinning = spin_ && time < start + kSpin;
        // Before the sources are looked at: a frame found after that would be slept over.
        if (!spinning || time - listened > kListenEvery) {
            listened = time;
            listen();
        }
        for (int node : sources) {
            Link& from = link(node);
            if (from.early(step_)) continue;
            from.pump();
            if (from.ready) continue;
            if (from.closed || from.ended) from.gone();
            receiving = true;
        }
        if (!receiving && !(drained && sending)) break;
        if (time - checked > kCheckEvery) {
            checked = time;
            listen_ahead();
            check_stalls(sources, start);
        }
        if (spinning)
            cpu_pause();
        else
            back_off(peers_, -1, kBackOffMilliseconds);
    }
    const double end = now();
    waited_ += end - counted_until_;
    if (sent_at == 0) sent_at = end;
    context_.counters.wire_seconds += sent_at - start;
    context_.counters.wait_seconds += end - sent_at;
}

// Gives the processor away until one of the links may move, `extra` is readable, or time is up.
// True where `extra` was the reason.
bool Exchange::back_off(const std::vector<Link*>& links, int extra, int milliseconds) {
    std::vector<pollfd> polled = {{extra, POLLIN, 0}};
    std::vector<Link*> asleep;
    bool moved = false, timed = false;
    for (Link* link : links) {
        // What lies behind a complete frame is not for now.
        const bool reading = !link->ready, writing = link->sending();
        if (link->closed || (!reading && !writing)) continue;
        const short events = link->transport->prepare_wait(reading, writing);
        asleep.push_back(link);
        moved |= events == 0;
        timed |= link->transport->descriptor() < 0;
        polled.push_back({link->transport->descriptor(), events, 0});
    }
    if (timed && !moved) {
        // Nothing to sleep on: let others work, and after a while sleep blindly.
        if (blind_since_ == 0) blind_since_ = now();
        sched_yield();
        if (!spin_ && now() - blind_since_ > kBlindYields) usleep(20);
        milliseconds = 0;
    }
    poll(polled.data(), static_cast<nfds_t>(polled.size()), moved ? 0 : milliseconds);
    for (Link* link : asleep) link->transport->finish_wait();
    return polled[0].revents != 0;
}

// --- the end ---

void Exchange::abort(const std::string& reason) noexcept try {
    if (left_) return;
    left_ = true;
    const size_t bytes = std::min(reason.size(), kLongestReason);
    std::vector<uint8_t> frame(sizeof(FrameHeader) + bytes);
    uint8_t* payload = frame.data() + sizeof(FrameHeader);
    std::copy_n(reason.begin(), bytes, payload);
    seal(header(FrameKind::abort, 0, 0), payload, bytes, true);
    // A frame that is half sent goes first, if its reader takes it soon.
    const double deadline = now() + kAbort;
    for (Link* link : peers_) {
        link->forget_unsent(false);
        link->post(frame.data(), frame.size());
        while (!link->flush() && !link->closed && now() < deadline) usleep(200);
        link->forget_unsent(true);
    }
} catch (const std::exception&) {
    // Out of memory: the links close, which says enough.
}

void Exchange::leave() noexcept try {
    if (left_) return;
    left_ = true;
    uint8_t frame[sizeof(FrameHeader)];
    seal(header(FrameKind::bye, 0, 0), frame + sizeof frame, 0, true);
    for (Link* link : peers_) {
        link->forget_unsent(true);
        link->post(frame, sizeof frame);
    }
} catch (const std::exception&) {
}

void Exchange::forget_unsent() noexcept {
    for (Link* link : peers_) link->forget_unsent(true);
}

}  // namespace bw
