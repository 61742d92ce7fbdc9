// The operations that talk to other nodes. Thread 0 exchanges; encoding and adding is shared.
#include <cstring>

#include "executor/executor.h"
#include "executor/span.h"

namespace bw {

namespace {

constexpr int kBlock = 64;  // grid values that share a width on the wire

std::vector<int> without(const std::vector<int>& nodes, int node) {
    std::vector<int> others;
    for (int other : nodes)
        if (other != node) others.push_back(other);
    return others;
}

bool contains(const std::vector<int>& nodes, int node) {
    return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
}

// A grid message: a byte for each block (4 or 8), padded to 8 bytes, then the blocks.
size_t tag_bytes(int blocks) { return (static_cast<size_t>(blocks) + 7) / 8 * 8; }

bool encode_narrow(const int64_t* values, uint8_t* out) {
    auto* narrow = reinterpret_cast<int32_t*>(out);
    int64_t excess = 0;
    for (int i = 0; i < kBlock; i++) {
        const int64_t v = values[i];
        narrow[i] = static_cast<int32_t>(v);
        excess |= v ^ static_cast<int64_t>(narrow[i]);
    }
    return excess == 0;
}

bool all_finite(const float* values, int count) {
    uint32_t worst = 0;
    for (int i = 0; i < count; i++) {
        uint32_t bits;
        std::memcpy(&bits, values + i, sizeof bits);
        worst = std::max(worst, bits & 0x7fffffffu);
    }
    return worst < 0x7f800000u;
}

void check_size(const Exchange::Received& frame, size_t expected, const std::string& op) {
    if (frame.bytes != expected)
        throw StepError(op + ": node " + std::to_string(frame.node) + " sent " +
                        std::to_string(frame.bytes) + " bytes where " + std::to_string(expected) +
                        " were due");
}

}  // namespace

void Executor::embed(const Op& op, int member) {
    const int node = program_.node;
    const auto hidden = static_cast<size_t>(program_.hidden_size);
    const size_t bytes = sizeof(float) * hidden * static_cast<size_t>(step_.rows);
    if (member != 0) return;
    guarded(op, [&] {
        const float* rows = embeddings_;
        const bool shared = exchange_ && op.nodes.size() > 1;
        if (node == 0 && shared) {
            std::memcpy(exchange_->prepare(bytes), rows, bytes);
            exchange_->transfer(FrameKind::data, op.tag, without(op.nodes, 0), {},
                                Traffic::activations);
        } else if (node != 0) {
            const auto& got =
                exchange_->transfer(FrameKind::data, op.tag, {}, {0}, Traffic::activations);
            check_size(got[0], bytes, op.name);
            rows = reinterpret_cast<const float*>(got[0].payload);
        }
        for (int r = 0; r < step_.rows; r++)
            std::memcpy(row(op.out, r), rows + static_cast<size_t>(r) * hidden,
                        sizeof(float) * hidden);
        if (exchange_) exchange_->release();
    });
}

void Executor::receive_rows(const Op& op, int member) {
    if (member != 0) return;
    guarded(op, [&] {
        const auto hidden = static_cast<size_t>(program_.hidden_size);
        const auto& got =
            exchange_->transfer(FrameKind::data, op.tag, {}, op.nodes, Traffic::activations);
        check_size(got[0], sizeof(float) * hidden * static_cast<size_t>(step_.rows), op.name);
        for (int r = 0; r < step_.rows; r++)
            std::memcpy(row(op.out, r), got[0].payload + sizeof(float) * hidden * r,
                        sizeof(float) * hidden);
        exchange_->release();
    });
}

void Executor::send_rows(const Op& op, int member) {
    if (member != 0) return;
    guarded(op, [&] {
        const auto hidden = static_cast<size_t>(program_.hidden_size);
        uint8_t* out = exchange_->prepare(sizeof(float) * hidden * static_cast<size_t>(step_.rows));
        for (int r = 0; r < step_.rows; r++)
            std::memcpy(out + sizeof(float) * hidden * static_cast<size_t>(r), row(op.a, r),
                        sizeof(float) * hidden);
        exchange_->transfer(FrameKind::data, op.tag, op.nodes, {}, Traffic::activations);
    });
}

void Executor::all_reduce_add(const Op& op, int member) {
    const auto ld = stride(op.a);
    Storage& grid = storage_[static_cast<size_t>(op.a.buffer)];
    const int node = program_.node;
    const bool alone = op.nodes.size() == 1;
    const size_t count = ld * static_cast<size_t>(step_.rows);
    const int blocks = static_cast<int>((count + kBlock - 1) / kBlock);
    const Span own = part(blocks, member, team_.members());
    const bool contributes = contains(op.contributors, node);
    // Blocks past the last row are zeros on every node.
    if (member == 0) {
        std::fill(grid.grid.begin() + static_cast<ptrdiff_t>(count),
                  grid.grid.begin() + static_cast<ptrdiff_t>(blocks) * kBlock, 0);
        if (!contributes)
            std::fill(grid.grid.begin(), grid.grid.begin() + static_cast<ptrdiff_t>(count), 0);
    }
    if (!alone) {
        if (contributes) {
            on_first(op, member, [&] {
                wide_.store(false);
                wire_ = exchange_->prepare(tag_bytes(blocks) +
                                           sizeof(int64_t) * kBlock * static_cast<size_t>(blocks));
            });
            if (first_failed_) return;
            uint8_t* data = wire_ + tag_bytes(blocks);
            bool fits = true;
            for (int b = own.from; b < own.to; b++)
                fits &= encode_narrow(grid.grid.data() + static_cast<size_t>(b) * kBlock,
                                      data + static_cast<size_t>(b) * kBlock * 4);
            if (!fits) wide_.store(true);
        }
        on_first(op, member, [&] {
            if (contributes) send_size_ = encode(grid.grid.data(), blocks);
            if (contributes) exchange_->shrink(send_size_);
            received_ = &exchange_->transfer(
                FrameKind::data, op.tag, contributes ? without(op.nodes, node) : std::vector<int>{},
                without(op.contributors, node), Traffic::activations);
            for (const auto& frame : *received_) check_grid(frame, blocks, op);
        });
        if (first_failed_) return;
        for (const auto& frame : *received_) add_grid(frame, blocks, own, grid.grid.data());
    } else {
        barrier();
    }
    const float* bias =
        op.vector >= 0 ? program_.vectors[static_cast<size_t>(op.vector)].data() : nullptr;
    // The member's values [from, to) of the rows laid end to end.
    const size_t from = static_cast<size_t>(own.from) * kBlock;
    const size_t to = std::min(count, static_cast<size_t>(own.to) * kBlock);
    const auto width = static_cast<size_t>(op.out.width);
    for (size_t at = from; at < to;) {
        const size_t r = at / ld, column = at % ld;
        const size_t stop = std::min(ld, column + (to - at));
        if (column < width) {
            const auto n = static_cast<int>(std::min(stop, width) - column);
            if (!kernels_.residual_add(grid.grid.data() + at, bias ? bias + column : nullptr,
                                       row(op.out, static_cast<int>(r)) + column, n))
                fail(op, op.name + ": a sum is too large for the grid");
        }
        at += stop - column;
    }
    if (!alone) on_first(op, member, [&] { exchange_->release(); });
}

// Completes the message whose narrow blocks are in place; returns its size.
size_t Executor::encode(const int64_t* values, int blocks) {
    const size_t tags = tag_bytes(blocks);
    std::memset(wire_, 0, tags);
    std::memset(wire_, 4, static_cast<size_t>(blocks));
    if (!wide_.load()) return tags + static_cast<size_t>(blocks) * kBlock * 4;
    uint8_t* at = wire_ + tags;
    for (int b = 0; b < blocks; b++) {
        const int64_t* block = values + static_cast<size_t>(b) * kBlock;
        if (encode_narrow(block, at)) {
            at += kBlock * 4;
        } else {
            wire_[b] = 8;
            std::memcpy(at, block, kBlock * 8);
            at += kBlock * 8;
        }
    }
    return static_cast<size_t>(at - wire_);
}

void Executor::check_grid(const Exchange::Received& frame, int blocks, const Op& op) const {
    const size_t tags = tag_bytes(blocks);
    size_t expected = tags;
    if (frame.bytes >= tags)
        for (int b = 0; b < blocks; b++) {
            if (frame.payload[b] != 4 && frame.payload[b] != 8)
                throw StepError(op.name + ": node " + std::to_string(frame.node) +
                                " sent a block of an unknown width");
            expected += static_cast<size_t>(frame.payload[b]) * kBlock;
        }
    check_size(frame, expected, op.name);
}

void Executor::add_grid(const Exchange::Received& frame, int blocks, Span own, int64_t* values) {
    const uint8_t* at = frame.payload + tag_bytes(blocks);
    for (int b = 0; b < own.from; b++) at += static_cast<size_t>(frame.payload[b]) * kBlock;
    for (int b = own.from; b < own.to; b++) {
        int64_t* out = values + static_cast<size_t>(b) * kBlock;
        if (frame.payload[b] == 4) {
            int32_t block[kBlock];
            std::memcpy(block, at, sizeof block);
            for (int i = 0; i < kBlock; i++)
                out[i] = static_cast<int64_t>(static_cast<uint64_t>(out[i]) +
                                              static_cast<uint64_t>(int64_t{block[i]}));
            at += sizeof block;
        } else {
            int64_t block[kBlock];
            std::memcpy(block, at, sizeof block);
            for (int i = 0; i < kBlock; i++)
                out[i] = static_cast<int64_t>(static_cast<uint64_t>(out[i]) +
                                              static_cast<uint64_t>(block[i]));
            at += sizeof block;
        }
    }
}

void Executor::gather_logits(const Op& op, int member) {
    if (member != 0 || logit_rows_ == 0) return;
    guarded(op, [&] {
        if (step_.best_only) return gather_best(op);
        const int node = program_.node;
        auto copy_in = [&](const uint8_t* from, size_t from_stride, int start, int stop) {
            for (int r = 0; r < logit_rows_; r++)
                std::memcpy(row(op.out, r) + start, from + static_cast<size_t>(r) * from_stride,
                            sizeof(float) * static_cast<size_t>(stop - start));
        };
        std::vector<int> sources;
        for (const auto& [owner, start, stop] : op.owners) {
            if (owner != node) {
                sources.push_back(owner);
            } else if (node == 0) {
                copy_in(reinterpret_cast<const uint8_t*>(row(op.a, 0)),
                        sizeof(float) * stride(op.a), start, stop);
            }
        }
        if (node != 0) {
            const size_t bytes = sizeof(float) * static_cast<size_t>(op.a.width);
            uint8_t* out = exchange_->prepare(bytes * static_cast<size_t>(logit_rows_));
            for (int r = 0; r < logit_rows_; r++)
                std::memcpy(out + bytes * static_cast<size_t>(r), row(op.a, r), bytes);
            exchange_->transfer(FrameKind::data, op.tag, {0}, {}, Traffic::logits);
            return;
        }
        std::vector<Exchange::Received> got;
        if (!sources.empty())
            got = exchange_->transfer(FrameKind::data, op.tag, {}, sources, Traffic::logits);
        for (const auto& frame : got)
            for (const auto& [owner, start, stop] : op.owners) {
                if (owner != frame.node) continue;
                const size_t bytes = sizeof(float) * static_cast<size_t>(stop - start);
                check_size(frame, bytes * static_cast<size_t>(logit_rows_), op.name);
                copy_in(frame.payload, bytes, start, stop);
            }
        if (exchange_) exchange_->release();
        for (int r = 0; r < logit_rows_; r++)
            if (!all_finite(row(op.out, r), program_.vocab_size))
                fail(op, "lm_head: a logit is not finite");
    });
}

// Greedy needs no logits: each owner sends its best token of each row.
void Executor::gather_best(const Op& op) {
    struct Candidate {
        float value;
        int32_t id;
    };
    const auto count = static_cast<size_t>(logit_rows_);
    const size_t bytes = sizeof(Candidate) * count;
    std::vector<Candidate> own(count);
    int own_start = 0;
    std::vector<int> sources;
    bool owns = false;
    for (const auto& [owner, start, stop] : op.owners) {
        if (owner == program_.node) {
            owns = true;
            own_start = start;
        } else {
            sources.push_back(owner);
        }
    }
    for (size_t r = 0; owns && r < count; r++) {
        const float* logits = row(op.a, static_cast<int>(r));
        const int at = kernels_.argmax(logits, op.a.width);
        if (at < 0) return fail(op, "lm_head: a logit is not finite");
        own[r] = {logits[at], own_start + at};
    }
    if (program_.node != 0) {
        std::memcpy(exchange_->prepare(bytes), own.data(), bytes);
        exchange_->transfer(FrameKind::data, op.tag, {0}, {}, Traffic::logits);
        return;
    }
    std::vector<Exchange::Received> got;
    if (!sources.empty())
        got = exchange_->transfer(FrameKind::data, op.tag, {}, sources, Traffic::logits);
    best_.assign(count, -1);
    std::vector<float> values(count);
    // Ascending ids: on ties the first stays.
    for (const auto& [owner, start, stop] : op.owners) {
        std::vector<Candidate> theirs = own;
        for (const auto& frame : got)
            if (frame.node == owner) {
                check_size(frame, bytes, op.name);
                std::memcpy(theirs.data(), frame.payload, bytes);
            }
        for (size_t r = 0; r < count; r++) {
            if (theirs[r].id < start || theirs[r].id >= stop)
                throw StepError("node " + std::to_string(owner) +
                                " sent a token that it does not own");
            if (best_[r] < 0 || theirs[r].value > values[r]) {
                best_[r] = theirs[r].id;
                values[r] = theirs[r].value;
            }
        }
    }
    if (exchange_) exchange_->release();
}

}  // namespace bw
