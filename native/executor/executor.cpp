#include "executor/executor.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <stdexcept>

#include "core/clock.h"
#include "core/stored.h"
#include "core/system.h"
#include "executor/angles.h"
#include "executor/check.h"
#include "executor/fetch_ahead.h"
#include "executor/route.h"
#include "executor/span.h"

namespace bw {

namespace {

Program checked(Program program, const ExecutorOptions& options, const Exchange* exchange) {
    check_options(options);
    check_program(program, options.max_rows);
    check_weights(program);
    check_mesh(program, exchange);
    return program;
}

// Bytes of a row that the chosen experts' products read.
size_t widest_input(const Program& program) {
    size_t widest = 0;
    for (const Op& op : program.ops)
        if (op.kind == OpKind::expert_linear)
            widest = std::max(widest, sizeof(float) * static_cast<size_t>(padded(op.a.width)));
    return widest;
}

}  // namespace

Executor::Executor(Program program, ExecutorOptions options, std::shared_ptr<Exchange> exchange,
                   std::shared_ptr<ThreadTeam> team)
    : program_(checked(std::move(program), options, exchange.get())),
      fusion_(fuse(program_)),
      options_(std::move(options)),
      kernels_(*options_.kernels),
      exchange_(std::move(exchange)),
      book_(program_.states.empty() ? 0 : options_.num_states, options_.max_drafted),
      own_team_(team
                    ? std::move(team)
                    : std::make_shared<ThreadTeam>(options_.threads, options_.cpus, options_.spin)),
      team_(*own_team_),
      stealing_(team_.members()) {
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
    for (Vector& vector : program_.vectors) {
        // A panel's bias is read whole, and an expert's may begin anywhere.
        vector.values.resize(static_cast<size_t>(padded(vector.size) + kPanel));
        store_values(vector.values.data(), static_cast<size_t>(vector.size), vector.values.data());
    }
    // An epsilon that is subnormal as a float is none.
    for (Op& op : program_.ops)
        if (std::fabs(op.eps) < std::numeric_limits<float>::min()) op.eps = 0.0f;
    size_t widest = 0;
    for (const Matrix& matrix : program_.matrices)
        if (is_quantised(matrix.format))
            widest = std::max(widest, activation_bytes(matrix.format, matrix.layout));
    const size_t expert_row = std::max(expert_input_bytes(), head_input_bytes());
    if (expert_row > 0) widest = std::max(widest, widest_input(program_));
    activations_ = Zeroed<uint8_t>(rows * widest);
    gathered_ = Zeroed<uint8_t>(checked_product({rows, expert_row}));
    widest = std::max(widest, expert_row);
    for (const Op& op : program_.ops)
        if (op.kind == OpKind::route) widest = std::max(widest, sizeof(float) * route_scratch(op));
    widest = std::max(widest, state_scratch());
    routings_.resize(static_cast<size_t>(team_.members()));
    inputs_of_.resize(static_cast<size_t>(team_.members()));
    int widest_head = 1;
    for (const CacheShape& cache : program_.caches)
        widest_head = std::max({widest_head, cache.k_dim, cache.v_dim});
    size_t attention = attention_scratch(widest_head);
    for (const CacheShape& cache : program_.caches)
        if (cache.latent) attention = std::max(attention, latent_scratch(cache.k_dim, cache.v_dim));
    attention *= sizeof(float);
    const size_t pointers = sizeof(void*) * static_cast<size_t>(options_.max_slots_pages);
    for (int t = 0; t < team_.members(); t++)
        scratch_.emplace_back(std::max(widest, attention + pointers + 64));
    for (int t = 0; t < team_.members(); t++)
        normal_.emplace_back(static_cast<size_t>(padded(widest_norm(program_, fusion_))));
    for (const auto& table : program_.frequencies) {
        const size_t count = checked_product({rows, table.values.size()}) + 16;
        angles_.push_back({Zeroed<float>(count), Zeroed<float>(count)});
    }
    make_caches();
    if (!program_.states.empty()) make_states();
    logit_row_of_.reserve(rows);
    size_t messages = 0;
    for (const Op& op : program_.ops)
        if (sums_grids(op.kind) && op.group.size() > 1)
            messages = std::max(messages, reduction_bytes(options_.max_rows, op.a.width,
                                                          static_cast<int>(op.group.size())));
    wire_ = Zeroed<uint8_t>(messages);
    if (exchange_) limit_frames();
    if (options_.threads > 0 && !options_.cpus.empty()) place_thread(options_.cpus[0]);
    fetch_ahead_ = options_.fetch_ahead >= 0 ? static_cast<size_t>(options_.fetch_ahead)
                                             : find_fetch_ahead(program_, kernels_, team_);
}

void Executor::make_caches() {
    size_t total = 0;
    std::vector<size_t> sizes;
    for (const CacheShape& shape : program_.caches) {
        LayerCache cache;
        const size_t bytes = shape.latent ? latent_page_bytes(shape.k_dim, options_.half_kv)
                                          : kv_head_bytes(shape.k_dim, options_.half_kv);
        cache.head_bytes = (bytes + 63) / 64 * 64;
        cache.kv_heads = static_cast<size_t>(shape.kv_heads);
        sizes.push_back(checked_product(
            {cache.head_bytes, cache.kv_heads, static_cast<size_t>(options_.num_pages)}));
        if (__builtin_add_overflow(total, sizes.back(), &total)) throw std::bad_alloc();
        caches_.push_back(cache);
    }
    cache_ = std::make_unique<Arena>(total);
    for (size_t i = 0; i < caches_.size(); i++) caches_[i].pages = cache_->take(sizes[i]);
}

Executor::~Executor() {
    if (exchange_) exchange_->forget_unsent();
}

// What a peer may send: nothing is larger than the rows of a whole step.
void Executor::limit_frames() {
    const auto rows = static_cast<size_t>(options_.max_rows);
    size_t data = sizeof(float) * rows * static_cast<size_t>(program_.hidden_size);
    for (const Op& op : program_.ops) {
        if (sums_grids(op.kind))
            data = std::max(data, most_message_bytes(options_.max_rows, op.a.width));
        if (op.kind == OpKind::gather_logits && program_.node == 0)
            data = std::max(data, rows * std::max(sizeof(float) * static_cast<size_t>(op.out.width),
                                                  size_t{8}));
    }
    exchange_->limit(
        4 * (4 + rows * (5 + kStateNumbers + static_cast<size_t>(options_.max_slots_pages))), data);
}

size_t Executor::work_bytes() const {
    size_t bytes = activations_.size() + gathered_.size() + wire_.size();
    for (const Angles& a : angles_) bytes += 4 * (a.cosine.size() + a.sine.size());
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
    const LayerCache& own = caches_[static_cast<size_t>(cache)];
    const size_t index = static_cast<size_t>(page) * own.kv_heads + static_cast<size_t>(head);
    return own.pages + index * own.head_bytes;
}

// What brings the logits to node 0; null on the others, and in programs that make none.
const Op* Executor::logits_op() const {
    for (const Op& op : program_.ops)
        if (op.kind == OpKind::gather_logits && program_.node == 0) return &op;
    return nullptr;
}

const float* Executor::logits() const {
    const Op* op = logits_op();
    return op ? storage_[static_cast<size_t>(op->out.buffer)].floats.data() : nullptr;
}

size_t Executor::logits_stride() const {
    const Op* op = logits_op();
    return op ? stride(op->out) : 0;
}

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

void Executor::turn_angles(int member) {
    const Span own = part(step_.rows, member, team_.members());
    for (size_t t = 0; t < angles_.size(); t++) {
        const auto& table = program_.frequencies[t];
        for (int r = own.from; r < own.to; r++) {
            const size_t at = static_cast<size_t>(r) * table.values.size();
            rope_angles(step_.positions[r], table.values.data(),
                        static_cast<int>(table.values.size()), table.factor,
                        angles_[t].cosine.data() + at, angles_[t].sine.data() + at);
        }
    }
}

void Executor::work(int member) {
    double& mark = mark_;  // of member 0 alone
    stealing_.start(member);
    turn_angles(member);
    barrier();
    if (member == 0) {
        const double time = now();
        bill_->other += time - mark;
        mark = time;
    }
    double waited = 0, wired = 0;
    const bool drafts = step_.sources != nullptr;
    const size_t end = drafts ? program_.ops.size() : program_.main_ops() - (gathers_ ? 0 : 1);
    for (size_t i = drafts ? program_.main_ops() : 0; i < end; i++) {
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
            reduce(product_op, op, member);
        else
            run_op(op, member);
        if (!fusion_.barriers[i]) continue;
        barrier();
        // Stable here: whoever is ahead already can only have failed in a later operation.
        if (failed_at_.load() <= static_cast<int>(i)) return;
        if (member == 0) {
            const double time = now();
            double spent = time - mark;
            mark = time;
            switch (op.info().item) {
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
#define BW_RUN(kind)   \
    case OpKind::kind: \
        return kind(op, member);
        BW_OPERATIONS(BW_RUN)
#undef BW_RUN
    }
}

}  // namespace bw
