// Progress and stalls: nodes tell each other that they work, and who of them has stopped.
#include <algorithm>
#include <cstdio>

#include "core/clock.h"
#include "exchange/exchange.h"

namespace bw {

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
    int awaited = -1, culprit = -1;
    auto look = [&](int node) {
        int end = node;
        const double seconds = idle_seconds(node, since, time, &end);
        if (seconds <= worst) return;
        worst = seconds;
        awaited = node;
        culprit = end;
    };
    for (int node : sources)
        if (!link(node).ready && !link(node).early(step_)) look(node);
    for (const Link* link : peers_)
        if (link->sending_data()) look(link->node);
    if (awaited < 0) return;
    if (worst > stall_seconds_) throw StepError(stalled(culprit, worst));
    if (time - last_report_ > report_every_) send_progress(awaited);
}

}  // namespace bw
