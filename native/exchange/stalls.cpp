// Progress and stalls: nodes tell each other that they work, and who of them has stopped.
#include <algorithm>
#include <cstdio>

#include "core/clock.h"
#include "exchange/exchange.h"

namespace bw {

namespace {
constexpr double kTimesUsual = 10;
constexpr double kReportsMissed = 3;  // of a peer that computes, until that is no longer believed
// Whoever hears nothing of anybody may be the one that is cut off: the others may speak first.
constexpr double kOwnDoubt = 0.1;  // of the bound
}  // namespace

void Exchange::send_progress(int waiting_for) {
    uint8_t frame[sizeof(FrameHeader)];
    const auto part = static_cast<uint16_t>(waiting_for + 1);
    seal(header(FrameKind::progress, context_.work, part), frame + sizeof frame, 0, true);
    for (Link* link : peers_) link->post(frame, sizeof frame);
    last_report_ = now();
}

void Exchange::report_progress() noexcept {
    context_.work++;
    try {
        for (Link* link : peers_) {
            if (!link->sending_data()) continue;
            link->flush();
            link->read_ahead();
        }
        if (!peers_.empty() && now() - last_report_ > report_every_) send_progress(-1);
    } catch (...) {
        trouble_ = std::current_exception();
    }
}

std::string Exchange::stalled(int node, double seconds) const {
    char text[64];
    std::snprintf(text, sizeof text, " made no progress for %.1f s", seconds);
    return context_.names[static_cast<size_t>(node)] + text;
}

// How long nobody has done any work whom a wait for `node` depends on: the node, the one that it
// says it waits for, and so on. The last of them is to blame; in a circle, the first.
double Exchange::idle_seconds(int node, double since, double time, int* culprit) const {
    double latest = since;
    int at = node;
    for (int hops = 0; hops < num_nodes(); hops++) {
        latest = std::max(latest, link(at).progressed_at);
        const int next = link(at).waits_for;
        if (next < 0 || next >= num_nodes()) {
            *culprit = at;
            return time - latest;
        }
        if (next == context_.node) break;
        at = next;
    }
    *culprit = node;
    return time - latest;
}

// Waiting is no work: nodes that wait for each other in a circle all go quiet, while a node that
// computes keeps everyone patient who waits for it, at whatever remove.
void Exchange::check_stalls(const std::vector<int>& sources, double since) {
    const double time = now();
    double worst = -1;
    int awaited = -1, culprit = -1, late = 0;
    auto look = [&](int node) {
        int end = node;
        const double seconds = idle_seconds(node, since, time, &end);
        if (seconds <= worst) return;
        worst = seconds;
        awaited = node;
        culprit = end;
    };
    for (int node : sources)
        if (!link(node).ready && !link(node).early(step_)) late++, look(node);
    for (const Link* link : peers_)
        if (link->sending_data()) look(link->node);
    if (awaited < 0) return;
    const bool all = late > 1 && static_cast<size_t>(late) == peers_.size();
    const double bound = stall_seconds_ * (all ? 1 + kOwnDoubt : 1);
    if (worst > bound) throw StepError(stalled(culprit, worst));
    note_wait(culprit, time, bound);
    if (time - last_report_ > report_every_) send_progress(awaited);
}

// Where a link loses nearly all that it should carry, every message comes in the end, and counts as
// work. What tells is how long the step waits with nobody at work whom it waits for.
void Exchange::note_wait(int culprit, double time, double bound) {
    const double waited = time - counted_until_;
    counted_until_ = time;
    if (time - link(culprit).computed_at < kReportsMissed * report_every_) return;
    waited_ += waited;
    waited_for_[static_cast<size_t>(culprit)] += waited;
    const double usual = usual_.expected(context_.moved - moved_before_);
    if (waited_ <= std::max(bound, kTimesUsual * usual)) return;
    const auto most = std::max_element(waited_for_.begin(), waited_for_.end());
    throw StepError(stalled(static_cast<int>(most - waited_for_.begin()), waited_) +
                    " but for bytes that trickle");
}

}  // namespace bw
