// all_reduce_add and its kin: every node of a group gets the sum of its contributors' grid values.
//
// reduction.h says how nodes share a sum. Many rows are cut in chunks: while the first chunk's sums
// cross, the product that makes the next ones is computed. Integer sums: nothing of this shows in
// the answer.
#include <algorithm>
#include <cstring>

#include "core/clock.h"
#include "executor/executor.h"
#include "executor/span.h"

namespace bw {

namespace {

int rank_of(const std::vector<int>& nodes, int node) {
    return static_cast<int>(std::find(nodes.begin(), nodes.end(), node) - nodes.begin());
}

size_t count_of(Span span) { return static_cast<size_t>(span.to - span.from); }

}  // namespace

Executor::Reduction Executor::reduction(const Op& op) const {
    Reduction r;
    r.nodes = static_cast<int>(op.group.size());
    r.rank = rank_of(op.group, program_.node);
    r.contributes = std::find(op.contributors.begin(), op.contributors.end(), program_.node) !=
                    op.contributors.end();
    r.width = op.a.width;
    // Bits of floats are no numbers to round.
    r.wire = op.kind == OpKind::all_reduce_bits ? WireFormat::exact : options_.wire;
    const ReductionPlan plan = plan_reduction(step_.rows, r.width, r.nodes, r.wire,
                                              options_.hop_bytes, options_.overlap_rows);
    r.chunks = plan.chunks;
    r.scattered = plan.scattered;
    return r;
}

bool Executor::overlaps(size_t index) const {
    if (step_.rows < 2 * options_.overlap_rows || index + 1 >= program_.ops.size()) return false;
    const Op& product = program_.ops[index];
    const Op& reduce = program_.ops[index + 1];
    return product.kind == OpKind::linear_grid && sums_grids(reduce.kind) &&
           product.out.buffer == reduce.a.buffer && reduction(reduce).chunks > 1;
}

Executor::Chunk Executor::chunk(const Reduction& r, int index) {
    const Span rows = part(step_.rows, index, r.chunks);
    Chunk c;
    c.first_row = rows.from;
    c.blocks = {rows.to - rows.from, r.width};
    // Messages lie one after the other: per chunk one for all, or a slice for each node.
    size_t at = 0;
    for (int i = 0; i < index; i++) {
        const Span before = part(step_.rows, i, r.chunks);
        at += room(r, {before.to - before.from, r.width});
    }
    c.wire = wire_.data() + at;
    return c;
}

Span Executor::slice(const Reduction& r, const Blocks& blocks, int rank) const {
    return r.scattered ? part(blocks.count(), rank, r.nodes) : Span{0, blocks.count()};
}

size_t Executor::room(const Reduction& r, const Blocks& blocks) const {
    if (!r.scattered) return message_room(blocks.rows, blocks.width);
    size_t bytes = 0;
    for (int rank = 0; rank < r.nodes; rank++) bytes += slice_room(blocks, slice(r, blocks, rank));
    return bytes;
}

size_t Executor::slice_room(const Blocks& blocks, Span own) const {
    const size_t most = tag_bytes(count_of(own)) + blocks_bytes(blocks, 8, own.from, own.to);
    return kFrameRoom + (most + 63) / 64 * 64;
}

// Where the payload of a slice begins.
uint8_t* Executor::message(const Reduction& r, const Chunk& c, int rank) const {
    uint8_t* at = c.wire + kFrameRoom;
    for (int before = 0; r.scattered && before < rank; before++)
        at += slice_room(c.blocks, slice(r, c.blocks, before));
    return at;
}

int64_t* Executor::block_values(const View& grid, const Chunk& c, int block) {
    Storage& storage = storage_[static_cast<size_t>(grid.buffer)];
    return storage.grid.data() +
           static_cast<size_t>(c.first_row + c.blocks.row(block)) * storage.stride +
           c.blocks.column(block);
}

// Encodes blocks [from, to), which lie in `whole`, in the message of it.
void Executor::encode(const Op& op, const Chunk& c, Span whole, Span blocks, WireFormat format,
                      uint8_t* payload) {
    const int tag = wire_tag(format);
    uint8_t* at =
        payload + tag_bytes(count_of(whole)) + blocks_bytes(c.blocks, tag, whole.from, blocks.from);
    bool fits = true;
    for (int b = blocks.from; b < blocks.to; b++) {
        const int size = c.blocks.size(b);
        fits &= encode_block(format, block_values(op.a, c, b), size, at);
        at += block_bytes(tag, size);
    }
    if (!fits) wide_.store(true);
}

// Completes the message of blocks `whole`, whose blocks are in place where none is wide.
size_t Executor::finish(const Op& op, const Chunk& c, Span whole, WireFormat format,
                        uint8_t* payload) {
    const int tag = wire_tag(format);
    const size_t tags = tag_bytes(count_of(whole));
    std::memset(payload, 0, tags);
    std::memset(payload, tag, count_of(whole));
    if (!wide_.load()) return tags + blocks_bytes(c.blocks, tag, whole.from, whole.to);
    uint8_t* at = payload + tags;
    for (int b = whole.from; b < whole.to; b++) {
        int64_t* values = block_values(op.a, c, b);
        const int size = c.blocks.size(b);
        int own = tag;
        if (!encode_block(format, values, size, at)) {
            own = 8;
            encode_wide(values, size, at);
        }
        payload[b - whole.from] = static_cast<uint8_t>(own);
        at += block_bytes(own, size);
    }
    return static_cast<size_t>(at - payload);
}

void Executor::check_message(const Exchange::Received& frame, const Op& op, const Chunk& c,
                             Span whole, WireFormat format) const {
    const size_t tags = tag_bytes(count_of(whole));
    size_t expected = tags;
    for (int b = whole.from; frame.bytes >= tags && b < whole.to; b++) {
        const int tag = frame.payload[b - whole.from];
        if (!tag_fits(format, tag))
            throw StepError(op.name + ": node " + std::to_string(frame.node) +
                            " sent a block of an unknown width");
        expected += block_bytes(tag, c.blocks.size(b));
    }
    check_size(frame, expected, op.name);
}

// Adds blocks [from, to) of the message of `whole` to the grid, or puts them there.
void Executor::decode(const Exchange::Received& frame, const Op& op, const Chunk& c, Span whole,
                      Span blocks, bool add) {
    const uint8_t* at = frame.payload + tag_bytes(count_of(whole));
    for (int b = whole.from; b < blocks.from; b++)
        at += block_bytes(frame.payload[b - whole.from], c.blocks.size(b));
    bool sane = true;
    for (int b = blocks.from; b < blocks.to; b++) {
        const int tag = frame.payload[b - whole.from], size = c.blocks.size(b);
        sane &= decode_block(tag, at, size, block_values(op.a, c, b), add);
        at += block_bytes(tag, size);
    }
    if (!sane)
        fail(op, op.name + ": node " + std::to_string(frame.node) +
                     " sent a sum that is too large for the grid");
}

// The node's own sums of a chunk, on their way to the others.
void Executor::contribute(const Op& op, const Reduction& r, int index, int member) {
    const Chunk c = chunk(r, index);
    const Span own = part(c.blocks.count(), member, team_.members());
    if (!r.contributes) {
        for (int b = own.from; b < own.to; b++)
            std::fill_n(block_values(op.a, c, b), c.blocks.size(b), 0);
        return;
    }
    for (int rank = 0; rank < (r.scattered ? r.nodes : 1); rank++) {
        const Span whole = slice(r, c.blocks, rank);
        const Span mine{std::max(own.from, whole.from), std::min(own.to, whole.to)};
        if (mine.from < mine.to) encode(op, c, whole, mine, r.wire, message(r, c, rank));
    }
    barrier();
    if (member != 0) return;
    if (first_failed_) return;
    first_failed_ = !guarded(op, [&] {
        const auto part_number = static_cast<uint16_t>(2 * index);
        for (int rank = 0; rank < (r.scattered ? r.nodes : 1); rank++) {
            if (r.scattered && rank == r.rank) continue;
            uint8_t* payload = message(r, c, rank);
            const size_t bytes = finish(op, c, slice(r, c.blocks, rank), r.wire, payload);
            exchange_->send(payload, bytes, FrameKind::data, op.tag, part_number,
                            r.scattered ? std::vector<int>{op.group[static_cast<size_t>(rank)]}
                                        : without(op.group, program_.node),
                            Traffic::activations);
        }
        wide_.store(false);
    });
}

// Adds up the node's own slice of a chunk and sends the sums on, exact.
bool Executor::sum_slice(const Op& op, const Reduction& r, int index, int member) {
    const Chunk c = chunk(r, index);
    const Span whole = slice(r, c.blocks, r.rank);
    on_first(op, member, [&] {
        received_ = &exchange_->receive(op.tag, static_cast<uint16_t>(2 * index),
                                        without(op.contributors, program_.node));
        for (const auto& frame : *received_) check_message(frame, op, c, whole, r.wire);
    });
    if (first_failed_) return false;
    Span mine = part(whole.to - whole.from, member, team_.members());
    mine = {whole.from + mine.from, whole.from + mine.to};
    for (const auto& frame : *received_) decode(frame, op, c, whole, mine, true);
    uint8_t* payload = message(r, c, r.rank);
    encode(op, c, whole, mine, WireFormat::exact, payload);
    on_first(op, member, [&] {
        const size_t bytes = finish(op, c, whole, WireFormat::exact, payload);
        wide_.store(false);
        exchange_->send(payload, bytes, FrameKind::data, op.tag,
                        static_cast<uint16_t>(2 * index + 1), without(op.group, program_.node),
                        Traffic::activations);
    });
    return !first_failed_;
}

// Brings the others' sums of a chunk into the grid.
bool Executor::collect(const Op& op, const Reduction& r, int index, int member) {
    const Chunk c = chunk(r, index);
    const bool last = index == r.chunks - 1;
    // All have met since the last frames were read: after the operation before, or to send.
    const bool met = r.chunks == 1 && !r.scattered;
    if (!met) barrier();
    on_first_met(op, member, [&] {
        const auto number = static_cast<uint16_t>(2 * index + (r.scattered ? 1 : 0));
        const auto& senders = r.scattered ? op.group : op.contributors;
        received_ = &exchange_->receive(op.tag, number, without(senders, program_.node));
        if (last) exchange_->drain();
        for (const auto& frame : *received_)
            check_message(frame, op, c, slice(r, c.blocks, rank_of(op.group, frame.node)),
                          r.scattered ? WireFormat::exact : r.wire);
    });
    if (first_failed_) return false;
    const Span own = part(c.blocks.count(), member, team_.members());
    for (const auto& frame : *received_) {
        const Span whole = slice(r, c.blocks, rank_of(op.group, frame.node));
        const Span mine{std::max(own.from, whole.from), std::min(own.to, whole.to)};
        if (mine.from < mine.to) decode(frame, op, c, whole, mine, !r.scattered);
    }
    return true;
}

// What becomes of the sums: they are added to the residual, or are the output.
void Executor::end_sum(const Op& op, const Chunk& c, int member) {
    if (op.kind == OpKind::all_reduce_bits) return;
    const float* bias =
        op.vector >= 0 ? program_.vectors[static_cast<size_t>(op.vector)].values.data() : nullptr;
    const Span own = part(c.blocks.count(), member, team_.members());
    bool sane = true;
    for (int b = own.from; b < own.to;) {
        // As far as the row goes.
        const int column = c.blocks.column(b);
        const int stop = std::min(own.to, b - column / kBlock + c.blocks.per_row());
        const int count = std::min(c.blocks.width, column + (stop - b) * kBlock) - column;
        float* out = row(op.out, c.first_row + c.blocks.row(b)) + column;
        if (op.kind == OpKind::all_reduce) std::fill_n(out, count, 0.0f);
        sane &= kernels_.residual_add(block_values(op.a, c, b), bias ? bias + column : nullptr, out,
                                      count);
        b = stop;
    }
    if (!sane) fail(op, op.name + ": a sum is too large for the grid");
}

void Executor::all_reduce_add(const Op& op, int member) { reduce(nullptr, op, member); }

void Executor::all_reduce(const Op& op, int member) { reduce(nullptr, op, member); }

void Executor::all_reduce_bits(const Op& op, int member) { reduce(nullptr, op, member); }

// `product_op`: the linear_grid that makes the sums, where it is computed chunk by chunk here.
void Executor::reduce(const Op* product_op, const Op& op, int member) {
    const Reduction r = reduction(op);
    if (r.nodes == 1) return end_sum(op, chunk(r, 0), member);
    const double start = now();
    for (int index = 0; index < r.chunks; index++) {
        if (product_op) {
            product(*product_op, member, true, part(step_.rows, index, r.chunks));
            barrier();
            // Stable here: a send can only have failed the next operation.
            if (failed_at_.load() < static_cast<int>(&op - program_.ops.data()) || first_failed_)
                return;
        }
        // Whoever is still sending has yet to lower the flag of wide sums.
        if (!product_op && index > 0) barrier();
        contribute(op, r, index, member);
    }
    if (member == 0 && product_op) overlapped_ += now() - start;
    for (int index = 0; r.scattered && index < r.chunks; index++)
        if (!sum_slice(op, r, index, member)) return;
    for (int index = 0; index < r.chunks; index++) {
        if (!collect(op, r, index, member)) return;
        end_sum(op, chunk(r, index), member);
    }
}

}  // namespace bw
