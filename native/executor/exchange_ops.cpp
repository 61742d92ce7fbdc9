// The operations that talk to other nodes. Thread 0 exchanges; encoding and adding is shared.
#include <cstring>

#include "core/stored.h"
#include "executor/executor.h"
#include "executor/span.h"

namespace bw {

namespace {

// In the place of the best token of a row that has a logit that is not finite.
constexpr int32_t kNoToken = -1;

}  // namespace

void check_size(const Exchange::Received& frame, size_t expected, const std::string& op) {
    if (frame.bytes != expected)
        throw StepError(op + ": node " + std::to_string(frame.node) + " sent " +
                        std::to_string(frame.bytes) + " bytes where " + std::to_string(expected) +
                        " were due");
}

void Executor::embed(const Op& op, int member) {
    const int node = program_.node;
    const auto hidden = static_cast<size_t>(program_.hidden_size);
    const size_t bytes = sizeof(float) * hidden * static_cast<size_t>(step_.rows);
    if (member != 0) return;
    guarded(op, [&] {
        const float* rows = embeddings_;
        const bool shared = exchange_ && op.group.size() > 1;
        if (node == 0 && shared) {
            std::memcpy(exchange_->prepare(bytes), rows, bytes);
            exchange_->transfer(FrameKind::data, op.tag, without(op.group, 0), {},
                                Traffic::activations);
        } else if (node != 0) {
            const auto& got =
                exchange_->transfer(FrameKind::data, op.tag, {}, {0}, Traffic::activations);
            check_size(got[0], bytes, op.name);
            rows = reinterpret_cast<const float*>(got[0].payload);
        }
        for (int r = 0; r < step_.rows; r++)
            store_values(rows + static_cast<size_t>(r) * hidden, hidden, row(op.out, r));
        if (exchange_) exchange_->release();
    });
}

void Executor::recv(const Op& op, int member) {
    if (member != 0) return;
    guarded(op, [&] {
        const size_t bytes = row_bytes(options_.wire, program_.hidden_size);
        const auto& got =
            exchange_->transfer(FrameKind::data, op.tag, {}, op.peers, Traffic::activations);
        check_size(got[0], bytes * static_cast<size_t>(step_.rows), op.name);
        for (int r = 0; r < step_.rows; r++) {
            float* to = row(op.out, r);
            decode_row(options_.wire, got[0].payload + bytes * static_cast<size_t>(r),
                       program_.hidden_size, to);
            // A q8 step may be smaller than any number that is stored.
            store_values(to, static_cast<size_t>(program_.hidden_size), to);
        }
        exchange_->release();
    });
}

void Executor::send(const Op& op, int member) {
    if (member != 0) return;
    guarded(op, [&] {
        const size_t bytes = row_bytes(options_.wire, program_.hidden_size);
        uint8_t* out = exchange_->prepare(bytes * static_cast<size_t>(step_.rows));
        for (int r = 0; r < step_.rows; r++)
            if (!encode_row(options_.wire, row(op.a, r), program_.hidden_size,
                            out + bytes * static_cast<size_t>(r)))
                throw StepError(op.name + ": an activation is not finite");
        exchange_->transfer(FrameKind::data, op.tag, op.peers, {}, Traffic::activations);
    });
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
    });
}

// Greedy needs no logits: each owner sends its best token of each row. A logit that is not finite
// leaves its row without one, and the other rows alone.
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
        own[r] = at < 0 ? Candidate{0, kNoToken} : Candidate{logits[at], own_start + at};
    }
    if (program_.node != 0) {
        std::memcpy(exchange_->prepare(bytes), own.data(), bytes);
        exchange_->transfer(FrameKind::data, op.tag, {0}, {}, Traffic::logits);
        return;
    }
    std::vector<Exchange::Received> got;
    if (!sources.empty())
        got = exchange_->transfer(FrameKind::data, op.tag, {}, sources, Traffic::logits);
    best_.assign(count, kNoToken);
    std::vector<float> values(count);
    std::vector<bool> bad(count);
    // Ascending ids: on ties the first stays.
    for (const auto& [owner, start, stop] : op.owners) {
        std::vector<Candidate> theirs = own;
        for (const auto& frame : got)
            if (frame.node == owner) {
                check_size(frame, bytes, op.name);
                std::memcpy(theirs.data(), frame.payload, bytes);
            }
        for (size_t r = 0; r < count; r++) {
            bad[r] = bad[r] || theirs[r].id == kNoToken;
            if (theirs[r].id != kNoToken && (theirs[r].id < start || theirs[r].id >= stop))
                throw StepError("node " + std::to_string(owner) +
                                " sent a token that it does not own");
            if (bad[r]) {
                best_[r] = kNoToken;
            } else if (best_[r] < 0 || theirs[r].value > values[r]) {
                best_[r] = theirs[r].id;
                values[r] = theirs[r].value;
            }
        }
    }
    if (exchange_) exchange_->release();
}

}  // namespace bw
