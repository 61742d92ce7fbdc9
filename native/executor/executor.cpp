#include "executor/executor.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstring>
#include <new>
#include <stdexcept>

#include "core/clock.h"
#include "core/float_mode.h"
#include "executor/angles.h"
#include "executor/fetch_ahead.h"
#include "executor/span.h"

namespace bw {

namespace {
// Flags of a step's header.
constexpr int32_t kBestOnly = 1, kPrefill = 2;
}  // namespace

Executor::Executor(Program program, ExecutorOptions options, std::shared_ptr<Exchange> exchange,
                   std::shared_ptr<ThreadTeam> team)
    : program_(std::move(program)),
      fusion_(fuse(program_)),
      options_(std::move(options)),
      kernels_(*options_.kernels),
      exchange_(std::move(exchange)),
      own_team_(team
                    ? std::move(team)
                    : std::make_shared<ThreadTeam>(options_.threads, options_.cpus, options_.spin)),
      team_(*own_team_),
      handout_(team_.members()) {
    const auto rows = static_cast<size_t>(options_.max_rows);
    for (const Buffer& buffer : program_.buffers) {
        Storage storage;
        storage.stride = static_cast<size_t>(padded(buffer.width));
        if (buffer.grid)
            storage.grid = Zeroed<int64_t>(rows * storage.stride + 64);
        else
            storage.floats = Zeroed<float>(rows * storage.stride + 16);
        storage_.push_back(std::move(storage));
    }
    for (auto& vector : program_.vectors)
        vector.resize(static_cast<size_t>(padded(static_cast<int>(vector.size()))));
    size_t widest = 0;
    for (const Matrix& matrix : program_.matrices)
        if (matrix.format == Format::q8 || matrix.format == Format::q4)
            widest = std::max(widest, activation_bytes(matrix.format, matrix.layout));
    activations_ = Zeroed<uint8_t>(rows * widest);
    const size_t attention_scratch = sizeof(float) * kHeadsTogether *
                                     (2 * static_cast<size_t>(padded(program_.cache.dim)) + kPage);
    const size_t pointers = sizeof(void*) * static_cast<size_t>(options_.max_slots_pages);
    for (int t = 0; t < team_.members(); t++)
        scratch_.emplace_back(std::max(widest, attention_scratch + pointers + 64));
    normal_.assign(scratch_.size(),
                   std::vector<float>(static_cast<size_t>(padded(program_.hidden_size)) + 16));
    const size_t angles = rows * program_.inv_freq.size() + 16;
    cosine_.resize(angles);
    sine_.resize(angles);
    head_bytes_ = (kv_head_bytes(program_.cache.dim, options_.half_kv) + 63) / 64 * 64;
    const size_t cache_bytes = head_bytes_ * static_cast<size_t>(program_.cache.kv_heads) *
                               static_cast<size_t>(options_.num_pages) *
                               static_cast<size_t>(program_.cache.layers);
    cache_ = std::make_unique<Arena>(cache_bytes);
    attention_scale_ =
        static_cast<float>(1.0 / std::sqrt(static_cast<double>(std::max(1, program_.cache.dim))));
    logit_row_of_.reserve(rows);
    size_t messages = 0;
    for (const Op& op : program_.ops)
        if (op.kind == OpKind::all_reduce_add && op.nodes.size() > 1)
            messages = std::max(messages, reduction_bytes(options_.max_rows, op.a.width,
                                                          static_cast<int>(op.nodes.size())));
    wire_ = Zeroed<uint8_t>(messages);
    if (exchange_) limit_frames();
    if (options_.threads > 0 && !options_.cpus.empty()) pin_to_cpu(options_.cpus[0]);
    fetch_ahead_ = options_.fetch_ahead >= 0 ? static_cast<size_t>(options_.fetch_ahead)
                                             : find_fetch_ahead(program_, kernels_, team_);
}

Executor::~Executor() {
    if (exchange_) exchange_->forget_unsent();
}

// What a peer may send: nothing is larger than the rows of a whole step.
void Executor::limit_frames() {
    const auto rows = static_cast<size_t>(options_.max_rows);
    size_t data = sizeof(float) * rows * static_cast<size_t>(program_.hidden_size);
    for (const Op& op : program_.ops) {
        if (op.kind == OpKind::all_reduce_add)
            data = std::max(data, most_message_bytes(options_.max_rows, op.a.width));
        if (op.kind == OpKind::gather_logits && program_.node == 0)
            data = std::max(data, rows * std::max(sizeof(float) * static_cast<size_t>(op.out.width),
                                                  size_t{8}));
    }
    exchange_->limit(4 * (4 + rows * (4 + static_cast<size_t>(options_.max_slots_pages))), data);
}

size_t Executor::work_bytes() const {
    size_t bytes = activations_.size() + 4 * (cosine_.size() + sine_.size()) + wire_.size();
    if (exchange_) bytes += exchange_->buffer_bytes();
    for (const Storage& s : storage_) bytes += 4 * s.floats.size() + 8 * s.grid.size();
    return bytes;
}

int Executor::rows_of(const View& view) const {
    return program_.buffers[static_cast<size_t>(view.buffer)].logit_rows ? logit_rows_ : step_.rows;
}

size_t Executor::stride(const View& view) const {
    return storage_[static_cast<size_t>(view.buffer)].stride;
}

float* Executor::row(const View& view, int index) {
    Storage& storage = storage_[static_cast<size_t>(view.buffer)];
    return storage.floats.data() + static_cast<size_t>(index) * storage.stride + view.offset;
}

uint8_t* Executor::head_page(int cache, int page, int head) const {
    size_t index = (static_cast<size_t>(cache) * static_cast<size_t>(options_.num_pages) +
                    static_cast<size_t>(page)) *
                       static_cast<size_t>(program_.cache.kv_heads) +
                   static_cast<size_t>(head);
    return cache_->base() + index * head_bytes_;
}

const float* Executor::logits() const {
    for (const Op& op : program_.ops)
        if (op.kind == OpKind::gather_logits && op.out.buffer >= 0)
            return storage_[static_cast<size_t>(op.out.buffer)].floats.data();
    return nullptr;
}

size_t Executor::logits_stride() const { return static_cast<size_t>(padded(program_.vocab_size)); }

void Executor::barrier() { team_.barrier(); }

void Executor::tick(int member) {
    if (member != 0) return;
    const uint32_t count = progress_.load(std::memory_order_relaxed) + 1;
    progress_.store(count, std::memory_order_relaxed);
    if (exchange_) exchange_->report_progress();
}

void Executor::fail(const Op& op, const std::string& what) {
    std::lock_guard<std::mutex> lock(failure_mutex_);
    const int index = static_cast<int>(&op - program_.ops.data());
    if (failed_at_.load() == INT_MAX) failure_ = what;
    failed_at_.store(std::min(failed_at_.load(), index));
}

void Executor::check(const StepRows& s) const {
    if (s.rows < 1 || s.rows > options_.max_rows)
        throw std::invalid_argument("a step of " + std::to_string(s.rows) + " rows; 1 to " +
                                    std::to_string(options_.max_rows) + " are possible");
    if (s.slots < 1 || s.pages < 1 || s.pages > options_.max_slots_pages)
        throw std::invalid_argument("a step needs page tables of 1 to " +
                                    std::to_string(options_.max_slots_pages) + " pages");
    for (int i = 0; i < s.rows; i++) {
        if (s.slot_of[i] < 0 || s.slot_of[i] >= s.slots)
            throw std::invalid_argument("a row names a sequence that the step does not have");
        if (s.positions[i] < 0 || s.positions[i] / kPage >= s.pages)
            throw std::invalid_argument("a row's position lies beyond its page table");
        const int32_t* table = s.tables + static_cast<size_t>(s.slot_of[i]) * s.pages;
        for (int p = 0; p <= s.positions[i] / kPage; p++)
            if (table[p] < 0 || table[p] >= options_.num_pages)
                throw std::invalid_argument("a page table names a page that does not exist");
    }
}

void Executor::prepare(const StepRows& rows) {
    step_ = rows;
    logit_row_of_.clear();
    for (int i = 0; i < rows.rows; i++)
        if (rows.wants[i]) logit_row_of_.push_back(i);
    logit_rows_ = static_cast<int>(logit_row_of_.size());
    bill_ = &bills_[logit_rows_ == rows.rows && !rows.prefill ? 1 : 0];
    failed_at_.store(INT_MAX);
    first_failed_ = false;
    wide_.store(false);
    overlapped_ = 0;
    failure_.clear();
}

void Executor::run(const StepRows& rows, const float* embeddings) {
    const double start = now();
    check(rows);
    embeddings_ = embeddings;
    prepare(rows);
    if (exchange_) {
        const WireCounters before = exchange_->counters();
        const auto t = static_cast<size_t>(rows.rows);
        const size_t table = static_cast<size_t>(rows.slots) * static_cast<size_t>(rows.pages);
        exchange_->begin_step(exchange_->step() + 1);
        const int32_t flags = (rows.best_only ? kBestOnly : 0) | (rows.prefill ? kPrefill : 0);
        const int32_t head[4] = {rows.rows, rows.slots, rows.pages, flags};
        uint8_t* at = exchange_->prepare(sizeof head + 4 * (4 * t + table));
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
    const double sent = now();
    bill_->wire += sent - start;
    execute(start);
}

int Executor::follow(int wake_descriptor) {
    bool woken = false;
    const Exchange::Received* frame = exchange_->await_step(wake_descriptor, &woken);
    if (!frame) return woken ? 2 : 0;
    const double start = now();
    // Copied: the frame's buffer is reused by the exchanges of the step.
    std::vector<int32_t> words(frame->bytes / 4);
    std::memcpy(words.data(), frame->payload, words.size() * 4);
    exchange_->release();
    StepRows rows;
    if (words.size() >= 4) {
        rows.rows = words[0];
        rows.slots = words[1];
        rows.pages = words[2];
        rows.best_only = (words[3] & kBestOnly) != 0;
        rows.prefill = (words[3] & kPrefill) != 0;
    }
    const bool sane = rows.rows > 0 && rows.rows <= options_.max_rows && rows.slots > 0 &&
                      rows.slots <= rows.rows && rows.pages > 0 &&
                      rows.pages <= options_.max_slots_pages;
    const size_t t = sane ? static_cast<size_t>(rows.rows) : 0;
    const size_t table =
        sane ? static_cast<size_t>(rows.slots) * static_cast<size_t>(rows.pages) : 0;
    if (!sane || words.size() != 4 + 4 * t + table)
        throw StepError("node 0 opened a step with a header that makes no sense");
    rows.tokens = words.data() + 4;
    rows.slot_of = rows.tokens + t;
    rows.positions = rows.slot_of + t;
    rows.wants = rows.positions + t;
    rows.tables = rows.wants + t;
    exchange_->begin_step(exchange_->step());
    try {
        check(rows);
    } catch (const std::invalid_argument& error) {
        exchange_->abort(error.what());
        throw StepError(error.what());
    }
    embeddings_ = nullptr;
    prepare(rows);
    if (bill_ == &bills_[1] && ended_at_ > 0) {
        bill_->exchange_wait += start - ended_at_;
        bill_->wall += start - ended_at_;
    }
    bill_->other += now() - start;
    execute(start);
    return 1;
}

void Executor::count_wire(const WireCounters& before) {
    const WireCounters& after = exchange_->counters();
    for (size_t i = 0; i < kTraffics; i++) bill_->wire_bytes[i] += after.bytes[i] - before.bytes[i];
    bill_->exchanges += after.exchanges - before.exchanges;
}

// `start`: when the step began on this node, the header's way included.
void Executor::execute(double start) {
    const WireCounters before = exchange_ ? exchange_->counters() : WireCounters{};
    const uint64_t met = team_.barriers();
    mark_ = now();
    team_.run([this](int member) {
        const FloatMode mode;
        work(member);
    });
    if (exchange_) count_wire(before);
    bill_->barriers += team_.barriers() - met;
    ended_at_ = now();
    bill_->other += ended_at_ - mark_;
    bill_->wall += ended_at_ - start;
    bill_->steps++;
    bill_->rows += static_cast<uint64_t>(step_.rows);
    if (failed_at_.load() != INT_MAX) {
        if (exchange_) exchange_->abort(failure_);
        throw StepError(failure_);
    }
}

Executor::Item Executor::item(OpKind kind) const {
    switch (kind) {
        case OpKind::linear:
        case OpKind::linear_grid:
            return Item::weights;
        case OpKind::attention:
        case OpKind::kv_append:
            return Item::attention;
        case OpKind::embed:
        case OpKind::recv:
        case OpKind::send:
        case OpKind::all_reduce_add:
        case OpKind::gather_logits:
            return Item::exchange;
        default:
            return Item::other;
    }
}

void Executor::work(int member) {
    double& mark = mark_;  // of member 0 alone
    handout_.start(member);
    const int half = static_cast<int>(program_.inv_freq.size());
    const Span own = part(step_.rows, member, team_.members());
    for (int r = own.from; r < own.to; r++)
        rope_angles(step_.positions[r], program_.inv_freq.data(), half,
                    cosine_.data() + static_cast<size_t>(r) * half,
                    sine_.data() + static_cast<size_t>(r) * half);
    barrier();
    if (member == 0) {
        const double time = now();
        bill_->other += time - mark;
        mark = time;
    }
    double waited = 0, wired = 0;
    for (size_t i = 0; i < program_.ops.size(); i++) {
        const bool overlapped = overlaps(i);
        const Op* product_op = overlapped ? &program_.ops[i++] : nullptr;
        const Op& op = program_.ops[i];
        tick(member);
        if (member == 0) {
            if (exchange_) {
                waited = exchange_->counters().wait_seconds;
                wired = exchange_->counters().wire_seconds;
            }
        }
        if (fusion_.left_out[i]) continue;
        if (overlapped)
            all_reduce_add(product_op, op, member);
        else
            run_op(op, member);
        if (!fusion_.meets[i]) continue;
        barrier();
        // Stable here: whoever is ahead already can only have failed in a later operation.
        if (failed_at_.load() <= static_cast<int>(i)) return;
        if (member == 0) {
            const double time = now();
            double spent = time - mark;
            mark = time;
            switch (item(op.kind)) {
                case Item::weights:
                    bill_->weights += spent;
                    break;
                case Item::attention:
                    bill_->attention += spent;
                    break;
                case Item::other:
                    bill_->other += spent;
                    break;
                case Item::exchange:
                    if (exchange_) {
                        double wait = exchange_->counters().wait_seconds - waited;
                        double wire = exchange_->counters().wire_seconds - wired;
                        bill_->exchange_wait += wait;
                        bill_->wire += wire;
                        spent -= wait + wire;
                    }
                    bill_->weights += overlapped_;
                    bill_->other += spent - overlapped_;
                    overlapped_ = 0;
                    break;
            }
        }
    }
}

void Executor::run_op(const Op& op, int member) {
    switch (op.kind) {
        case OpKind::embed:
            return embed(op, member);
        case OpKind::recv:
            return receive_rows(op, member);
        case OpKind::send:
            return send_rows(op, member);
        case OpKind::rms_norm:
            return rms_norm(op, member);
        case OpKind::linear:
            return product(op, member, false, {0, rows_of(op.a)});
        case OpKind::rope:
            return rope(op, member);
        case OpKind::kv_append:
            return kv_append(op, member);
        case OpKind::attention:
            return attention(op, member);
        case OpKind::silu_mul:
            return silu_mul(op, member);
        case OpKind::linear_grid:
            return product(op, member, true, {0, step_.rows});
        case OpKind::all_reduce_add:
            return all_reduce_add(nullptr, op, member);
        case OpKind::take_rows:
            return take_rows(op, member);
        case OpKind::gather_logits:
            return gather_logits(op, member);
    }
}

}  // namespace bw
