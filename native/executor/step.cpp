// A step from its beginning to its end: node 0 opens it, the others follow, all execute it.
#include <algorithm>
#include <climits>
#include <cstring>
#include <new>
#include <stdexcept>

#include "core/clock.h"
#include "core/float_mode.h"
#include "executor/executor.h"

namespace bw {

namespace {
// Flags of a step's header.
constexpr int32_t kBestOnly = 1, kPrefill = 2, kDrafts = 4, kStates = 8;
}  // namespace

void Executor::check(const StepRows& s) {
    if (s.rows < 1 || s.rows > options_.max_rows)
        throw std::invalid_argument("a step of " + std::to_string(s.rows) + " rows; 1 to " +
                                    std::to_string(options_.max_rows) + " are possible");
    if (s.slots < 1 || s.slots > options_.max_rows)
        throw std::invalid_argument("a step of " + std::to_string(s.slots) + " sequences; 1 to " +
                                    std::to_string(options_.max_rows) + " are possible");
    if (s.pages < 1 || s.pages > options_.max_slots_pages)
        throw std::invalid_argument("a step needs page tables of 1 to " +
                                    std::to_string(options_.max_slots_pages) + " pages");
    if (s.sources && program_.drafts_from < 0)
        throw std::invalid_argument("a step drafts, which this program does not");
    for (int i = 0; i < s.rows; i++) {
        if (s.sources && (s.sources[i] < 0 || s.sources[i] >= options_.max_rows))
            throw std::invalid_argument("a row names a row that no step has");
        if (s.slot_of[i] < 0 || s.slot_of[i] >= s.slots)
            throw std::invalid_argument("a row names a sequence that the step does not have");
        if (s.positions[i] < 0 || s.positions[i] / kPage >= s.pages)
            throw std::invalid_argument("a row's position lies beyond its page table");
        const int32_t* table = s.tables + static_cast<size_t>(s.slot_of[i]) * s.pages;
        for (int p = 0; p <= s.positions[i] / kPage; p++)
            if (table[p] < 0 || table[p] >= options_.num_pages)
                throw std::invalid_argument("a page table names a page that does not exist");
    }
    if (!program_.states.empty() && !s.sources) book_.check(s);
}

void Executor::prepare(const StepRows& rows) {
    step_ = rows;
    // Passes of their own change no state; they leave the book as it stands.
    if (!program_.states.empty() && !rows.sources) book_.begin(rows);
    logit_row_of_.clear();
    for (int i = 0; i < rows.rows; i++)
        if (rows.wants[i]) logit_row_of_.push_back(i);
    logit_rows_ = static_cast<int>(logit_row_of_.size());
    bill_ = &bills_[rows.sources ? 2 : logit_rows_ == rows.rows && !rows.prefill ? 1 : 0];
    clear_failure();
    wide_.store(false);
    overlapped_ = 0;
}

void Executor::clear_failure() {
    failed_at_.store(INT_MAX);
    first_failed_ = false;
    failure_.clear();
}

void Executor::run(const StepRows& rows, const float* embeddings) {
    const double start = now();
    open(rows);
    embeddings_ = embeddings;
    bill_->wire += now() - start;
    execute(start);
}

bool Executor::staged() const {
    if (program_.node != 0 || program_.main_ops() < 2) return false;
    const Op& last = program_.ops[program_.main_ops() - 1];
    if (last.kind != OpKind::gather_logits) return false;
    return std::none_of(last.owners.begin(), last.owners.end(),
                        [](const auto& owner) { return owner[0] == 0; });
}

void Executor::start(const StepRows& rows, const float* embeddings) {
    if (!staged()) throw std::invalid_argument("the logits of this program are this node's own");
    if (rows.sources) throw std::invalid_argument("a step that drafts cannot be finished later");
    const double start = now();
    check(rows);
    prepare(rows);
    gathers_ = false;
    try {
        send_header(rows);
        embeddings_ = embeddings;
        bill_->wire += now() - start;
        execute(start);
    } catch (...) {
        gathers_ = true;
        flights_.clear();  // their logits will never come
        throw;
    }
    gathers_ = true;
    flights_.push_back({exchange_->step(), logit_rows_, rows.best_only, bill_});
    keep_early();
}

void Executor::keep_early() {
    const uint32_t first = flights_.empty() ? 0 : flights_.front().step;
    exchange_->keep_early(first, static_cast<uint32_t>(flights_.size()));
}

void Executor::finish() {
    if (flights_.empty()) throw std::invalid_argument("no step is under way");
    const Flight flight = flights_.front();
    const double start = now();
    const WireCounters before = exchange_->counters();
    const uint32_t newest = exchange_->step();
    exchange_->begin_step(flight.step);
    clear_failure();
    bill_ = flight.bill;
    logit_rows_ = flight.logit_rows;
    step_.best_only = flight.best_only;
    tick(0);
    gather_logits(program_.ops[program_.main_ops() - 1], 0);
    exchange_->begin_step(newest);
    const WireCounters& after = exchange_->counters();
    const double wait = after.wait_seconds - before.wait_seconds;
    const double wire = after.wire_seconds - before.wire_seconds;
    const double spent = now() - start;
    bill_->exchange_wait += wait;
    bill_->wire += wire;
    bill_->other += spent - wait - wire;
    bill_->wall += spent;
    count_wire(before);
    flights_.pop_front();
    keep_early();
    try {
        throw_failure();
    } catch (...) {
        flights_.clear();
        throw;
    }
}

void Executor::open(const StepRows& rows) {
    if (program_.node != 0) throw std::invalid_argument("only node 0 opens steps");
    if (!flights_.empty()) throw std::invalid_argument("steps are under way: finish them first");
    check(rows);
    if (!logits_op() && std::any_of(rows.wants, rows.wants + rows.rows, [](int w) { return w; }))
        throw std::invalid_argument("a row asks for logits, which this program does not make");
    prepare(rows);
    if (exchange_) send_header(rows);
}

void Executor::send_header(const StepRows& rows) {
    const WireCounters before = exchange_->counters();
    const auto t = static_cast<size_t>(rows.rows);
    const size_t table = static_cast<size_t>(rows.slots) * static_cast<size_t>(rows.pages);
    exchange_->begin_step(exchange_->step() + 1);
    const size_t states = rows.states ? static_cast<size_t>(rows.slots) * kStateNumbers : 0;
    const size_t columns = rows.sources ? 5 : 4;
    const int32_t flags = (rows.best_only ? kBestOnly : 0) | (rows.prefill ? kPrefill : 0) |
                          (rows.sources ? kDrafts : 0) | (rows.states ? kStates : 0);
    const int32_t head[4] = {rows.rows, rows.slots, rows.pages, flags};
    uint8_t* at = exchange_->prepare(sizeof head + 4 * (columns * t + table + states));
    auto put = [&at](const int32_t* values, size_t count) {
        std::memcpy(at, values, 4 * count);
        at += 4 * count;
    };
    put(head, 4);
    put(rows.tokens, t);
    put(rows.slot_of, t);
    put(rows.positions, t);
    put(rows.wants, t);
    put(rows.tables, table);
    if (rows.sources) put(rows.sources, t);
    if (states > 0) put(rows.states, states);
    std::vector<int> others;
    for (int node = 1; node < exchange_->num_nodes(); node++) others.push_back(node);
    try {
        exchange_->transfer(FrameKind::step, 0, others, {}, Traffic::control);
    } catch (const StepError& error) {
        exchange_->abort(error.what());
        throw;
    }
    count_wire(before);
}

int Executor::follow(int wake_descriptor) {
    double start = 0;
    const int outcome = join(wake_descriptor, &start);
    if (outcome != 1) return outcome;
    if (bill_ == &bills_[1] && ended_at_ > 0) {
        bill_->exchange_wait += start - ended_at_;
        bill_->wall += start - ended_at_;
    }
    bill_->other += now() - start;
    try {
        execute(start);
    } catch (const std::exception& error) {
        exchange_->abort(error.what());
        throw;
    }
    return 1;
}

int Executor::join(int wake_descriptor, double* start) {
    if (program_.node == 0) throw std::invalid_argument("node 0 follows nobody");
    try {
        return await_header(wake_descriptor, start);
    } catch (const std::exception& error) {
        exchange_->abort(error.what());
        throw;
    }
}

int Executor::await_header(int wake_descriptor, double* start) {
    bool woken = false;
    const Exchange::Received* frame = exchange_->await_step(wake_descriptor, &woken);
    if (!frame) return woken ? 2 : 0;
    *start = now();
    // Copied: the frame's buffer is reused by the exchanges of the step.
    header_.resize(frame->bytes / sizeof(int32_t));
    const std::vector<int32_t>& words = header_;
    if (!words.empty()) std::memcpy(header_.data(), frame->payload, words.size() * sizeof(int32_t));
    const bool odd = frame->bytes % sizeof(int32_t) != 0;
    exchange_->release();
    StepRows rows;
    bool with_states = false;
    if (words.size() >= 4) {
        rows.rows = words[0];
        rows.slots = words[1];
        rows.pages = words[2];
        rows.best_only = (words[3] & kBestOnly) != 0;
        rows.prefill = (words[3] & kPrefill) != 0;
        with_states = (words[3] & kStates) != 0;
    }
    const bool drafts = words.size() >= 4 && (words[3] & kDrafts) != 0;
    const bool sane = !odd && rows.rows > 0 && rows.rows <= options_.max_rows && rows.slots > 0 &&
                      rows.slots <= options_.max_rows && rows.pages > 0 &&
                      rows.pages <= options_.max_slots_pages;
    const size_t t = sane ? static_cast<size_t>(rows.rows) : 0;
    const size_t table =
        sane ? static_cast<size_t>(rows.slots) * static_cast<size_t>(rows.pages) : 0;
    const size_t states = sane && with_states ? static_cast<size_t>(rows.slots) * kStateNumbers : 0;
    if (!sane || words.size() != 4 + (drafts ? 5 : 4) * t + table + states)
        throw StepError("node 0 opened a step with a header that makes no sense");
    rows.tokens = words.data() + 4;
    rows.slot_of = rows.tokens + t;
    rows.positions = rows.slot_of + t;
    rows.wants = rows.positions + t;
    rows.tables = rows.wants + t;
    const int32_t* rest = rows.tables + table;
    if (drafts) rows.sources = rest, rest += t;
    if (with_states) rows.states = rest;
    exchange_->begin_step(exchange_->step());
    try {
        check(rows);
    } catch (const std::invalid_argument& error) {
        throw StepError(error.what());
    }
    embeddings_ = nullptr;
    prepare(rows);
    return 1;
}

void Executor::count_wire(const WireCounters& before) {
    const WireCounters& after = exchange_->counters();
    for (size_t i = 0; i < kTraffics; i++) bill_->wire_bytes[i] += after.bytes[i] - before.bytes[i];
    bill_->exchanges += after.exchanges - before.exchanges;
    bill_->sealing += after.sealing_seconds - before.sealing_seconds;
}

// For an error that no operation foresaw, once all members have ended.
void Executor::fail_all(const std::string& what) {
    if (failed_at_.load() == INT_MAX) failure_ = what;
    failed_at_.store(0);
}

// `start`: when the step began on this node, the header's way included.
void Executor::execute(double start) {
    const WireCounters before = exchange_ ? exchange_->counters() : WireCounters{};
    const uint64_t met = team_.barriers();
    mark_ = now();
    together([this](int member) { work(member); });
    if (exchange_) count_wire(before);
    bill_->barriers += team_.barriers() - met;
    ended_at_ = now();
    bill_->other += ended_at_ - mark_;
    bill_->wall += ended_at_ - start;
    bill_->steps++;
    bill_->rows += static_cast<uint64_t>(step_.rows);
    throw_failure();
}

void Executor::perform(size_t index, const float* embeddings) {
    if (index >= program_.ops.size()) throw std::invalid_argument("there is no such operation");
    if (step_.rows == 0) throw std::invalid_argument("no step has been opened");
    const Op& op = program_.ops[index];
    if (op.kind == OpKind::embed && program_.node == 0 && !embeddings)
        throw std::invalid_argument("node 0 gives the embedding rows");
    embeddings_ = embeddings;
    const WireCounters before = exchange_ ? exchange_->counters() : WireCounters{};
    together([&](int member) {
        stealing_.start(member);
        tick(member);
        run_op(op, member);
    });
    if (exchange_) count_wire(before);
    throw_failure();
}

// Runs something on every member; what it throws fails the step.
void Executor::together(const std::function<void(int)>& what) {
    try {
        team_.run([&](int member) {
            const FloatMode mode(options_.subnormals);
            what(member);
        });
    } catch (const std::bad_alloc&) {
        fail_all((exchange_ ? exchange_->name() : "this node") +
                 " ran out of memory in the midst of a step");
    } catch (const std::exception& error) {
        fail_all(error.what());
    }
}

void Executor::throw_failure() {
    if (failed_at_.load() == INT_MAX) return;
    if (exchange_) exchange_->abort(failure_);
    book_.fail();
    throw StepError(failure_);
}

}  // namespace bw
