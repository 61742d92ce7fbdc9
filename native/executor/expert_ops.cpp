// Mixtures of experts: routes, and products with the chosen experts' matrices in one parallel
// region each. A step's rows are grouped by expert, so that each matrix is read once.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "executor/executor.h"
#include "executor/pieces.h"
#include "executor/route.h"
#include "executor/span.h"

namespace bw {

namespace {

// Sums on the grid that the experts' products go through together: they stay in the second-level
// cache from one expert to the next.
constexpr int kSumsTogether = 1 << 15;

size_t input_bytes(const Matrix& matrix) {
    if (is_quantised(matrix.format)) return activation_bytes(matrix.format, matrix.layout);
    return sizeof(float) * static_cast<size_t>(padded(matrix.layout.k));
}

}  // namespace

void Executor::route(const Op& op, int member) {
    const float* correction =
        op.vector < 0 ? nullptr : program_.vectors[static_cast<size_t>(op.vector)].values.data();
    auto* scratch = reinterpret_cast<float*>(scratch_[static_cast<size_t>(member)].data());
    const Span own = part(step_.rows, member, team_.members());
    for (int r = own.from; r < own.to; r++)
        if (!route_row(op, kernels_, row(op.a, r), correction, scratch, row(op.out, r)))
            return fail(op, op.name + ": a logit or a score of the router is not finite");
}

// False, on every member alike, where the routes are none.
bool Executor::read_routes(const Op& op, int member) {
    Routing& routing = routings_[static_cast<size_t>(member)];
    const int slots = op.b.width / 2, count = static_cast<int>(op.matrices.size());
    routing.experts.clear();
    routing.counts.assign(static_cast<size_t>(count) + 1, 0);
    for (int r = 0; r < step_.rows; r++) {
        const float* ids = row(op.b, r);
        for (int s = 0; s < slots; s++) {
            const bool shared = s == op.top_k;
            const float most = static_cast<float>(count - (slots > op.top_k));
            if (!(ids[s] >= 0 && (shared ? ids[s] == most : ids[s] < most))) {
                fail(op, op.name + ": its routes name an expert that does not exist");
                return false;
            }
            routing.counts[static_cast<size_t>(ids[s])]++;
        }
    }
    int entries = 0;
    for (int e = 0; e < count; e++) {
        int& rows = routing.counts[static_cast<size_t>(e)];
        const bool here = op.matrices[static_cast<size_t>(e)] >= 0;
        if (rows > 0 && here) routing.experts.push_back({e, entries, rows});
        const int first = here ? entries : -1;
        entries += here ? rows : 0;
        rows = first;  // from here on the place of the next row
    }
    const auto size = static_cast<size_t>(entries);
    routing.rows.resize(size), routing.slots.resize(size);
    routing.weights.resize(size), routing.places.resize(size);
    for (int r = 0; r < step_.rows; r++) {
        const float* ids = row(op.b, r);
        for (int s = 0; s < slots; s++) {
            int& place = routing.counts[static_cast<size_t>(ids[s])];
            if (place < 0) continue;
            const auto at = static_cast<size_t>(place++);
            routing.rows[at] = r, routing.slots[at] = s;
            routing.weights[at] = ids[slots + s];
        }
    }
    return true;
}

// Where the numbers of a slot begin in a row of all chosen experts.
static int slot_offset(const Op& op, int slot) { return slot * op.width; }

const Matrix& Executor::expert_matrix(const Op& op, int expert) const {
    const int index = op.matrices[static_cast<size_t>(expert)];
    return program_.matrices[static_cast<size_t>(index)];
}

// Each entry's input as its expert's matrix reads it, entries in their order: the shared expert's,
// which may be wider or in another format, stand last. Where each expert's begin is put into
// inputs_of_. False where a number is not finite; the member's own entries are ready then.
bool Executor::expert_inputs(const Op& op, int member, bool of_slots) {
    const Routing& routing = routings_[static_cast<size_t>(member)];
    const bool alone = step_.rows == 1;
    uint8_t* inputs = alone ? scratch_[static_cast<size_t>(member)].data() : gathered_.data();
    std::vector<uint8_t*>& at = inputs_of_[static_cast<size_t>(member)];
    at.clear();
    // One row's are made by every member: cheaper than to meet at a barrier.
    const Span own =
        alone ? Span{0, routing.entries()} : part(routing.entries(), member, team_.members());
    bool finite = true;
    for (const ExpertRows& one : routing.experts) {
        const Matrix& matrix = expert_matrix(op, one.expert);
        const size_t bytes = input_bytes(matrix);
        at.push_back(inputs);
        for (int i = one.first; i < one.first + one.count; i++, inputs += bytes) {
            if (i < own.from || i >= own.to) continue;
            const auto entry = static_cast<size_t>(i);
            const float* x = row(op.a, routing.rows[entry]) +
                             (of_slots ? slot_offset(op, routing.slots[entry]) : 0);
            if (is_quantised(matrix.format))
                finite &= kernels_.quantize(matrix.format, x, matrix.layout, inputs);
            else
                std::memcpy(inputs, x, sizeof(float) * static_cast<size_t>(matrix.layout.k));
        }
    }
    return finite;
}

// The same where all matrices read a row alike: it is quantised once for all of them.
bool Executor::shared_inputs(const Op& op, int member) {
    const Routing& routing = routings_[static_cast<size_t>(member)];
    const Matrix& first = expert_matrix(op, routing.experts[0].expert);
    const size_t bytes = input_bytes(first);
    const bool alone = step_.rows == 1, quantised = is_quantised(first.format);
    uint8_t* inputs = alone ? scratch_[static_cast<size_t>(member)].data() : gathered_.data();
    bool finite = true;
    auto take = [&](int r, uint8_t* to) {
        if (quantised)
            finite &= kernels_.quantize(first.format, row(op.a, r), first.layout, to);
        else
            std::memcpy(to, row(op.a, r), sizeof(float) * static_cast<size_t>(first.layout.k));
    };
    if (alone) {
        take(0, inputs);
    } else {
        const Span own = part(step_.rows, member, team_.members());
        for (int r = own.from; r < own.to; r++)
            take(r, activations_.data() + static_cast<size_t>(r) * bytes);
        barrier();
        const Span entries = part(routing.entries(), member, team_.members());
        for (int i = entries.from; i < entries.to; i++)
            std::memcpy(inputs + static_cast<size_t>(i) * bytes,
                        activations_.data() +
                            static_cast<size_t>(routing.rows[static_cast<size_t>(i)]) * bytes,
                        bytes);
    }
    std::vector<uint8_t*>& at = inputs_of_[static_cast<size_t>(member)];
    at.clear();
    for (const ExpertRows& one : routing.experts)
        at.push_back(inputs + (alone ? 0 : static_cast<size_t>(one.first) * bytes));
    return finite;
}

void Executor::expert_linear(const Op& op, int member) {
    if (!read_routes(op, member)) return;
    Routing& routing = routings_[static_cast<size_t>(member)];
    if (routing.experts.empty()) return;
    const size_t out_stride = stride(op.out);
    const Format first = expert_matrix(op, routing.experts[0].expert).format;
    const bool alike = std::all_of(
        routing.experts.begin(), routing.experts.end(),
        [&](const ExpertRows& one) { return expert_matrix(op, one.expert).format == first; });
    const bool finite =
        alike ? shared_inputs(op, member) : expert_inputs(op, member, /*of_slots=*/false);
    if (step_.rows > 1) barrier();
    const std::vector<uint8_t*>& at = inputs_of_[static_cast<size_t>(member)];
    if (!finite) fail(op, op.name + ": an activation is not finite");
    int panels = 0;
    for (const ExpertRows& one : routing.experts)
        panels += expert_matrix(op, one.expert).num_panels();
    for (size_t i = 0; i < routing.places.size(); i++)
        routing.places[i] = static_cast<size_t>(routing.rows[i]) * out_stride +
                            static_cast<size_t>(slot_offset(op, routing.slots[i]));
    stealing_.begin(member);
    for (Span some{}; stealing_.take(member, panels, &some);) {
        int before = 0;
        for (size_t i = 0; i < routing.experts.size(); i++) {
            const ExpertRows& one = routing.experts[i];
            const Matrix& matrix = expert_matrix(op, one.expert);
            const int from = std::max(some.from - before, 0);
            const int to = std::min(some.to - before, matrix.num_panels());
            before += matrix.num_panels();
            if (from >= to) continue;
            ProductArgs args{};
            args.activations = at[i];
            args.y = row(op.out, 0);
            if (op.vector >= 0)
                args.bias = program_.vectors[static_cast<size_t>(op.vector)].values.data() +
                            static_cast<size_t>(one.expert) * static_cast<size_t>(op.width);
            expert_product(op, matrix, routing, one, {from, to}, input_bytes(matrix), args, member);
        }
    }
    count_experts(op, member);
}

void Executor::expert_grid(const Op& op, int member) {
    if (!read_routes(op, member)) return;
    Routing& routing = routings_[static_cast<size_t>(member)];
    const bool alone = step_.rows == 1;
    const bool finite = expert_inputs(op, member, /*of_slots=*/true);
    const std::vector<uint8_t*>& at = inputs_of_[static_cast<size_t>(member)];
    if (!finite) fail(op, op.name + ": an activation is not finite");
    if (!alone) barrier();
    Storage& storage = storage_[static_cast<size_t>(op.out.buffer)];
    for (size_t i = 0; i < routing.places.size(); i++)
        routing.places[i] = static_cast<size_t>(routing.rows[i]) * storage.stride;
    const int together = alone ? INT32_MAX : std::max(1, kSumsTogether / step_.rows / kPanel);
    stealing_.begin(member);
    for (Span some{}; stealing_.take(member, padded(op.out.width) / kPanel, &some);) {
        for (int from = some.from; from < some.to;) {
            const int to = some.to - from > together ? from + together : some.to;
            expert_sums(op, routing, {from, to}, at, member);
            from = to;
        }
    }
    count_experts(op, member);
}

// Some panels of outputs: the sums of all experts that have rows.
void Executor::expert_sums(const Op& op, const Routing& routing, Span panels,
                           const std::vector<uint8_t*>& inputs, int member) {
    Storage& storage = storage_[static_cast<size_t>(op.out.buffer)];
    const int first = panels.from * kPanel, stop = std::min(panels.to * kPanel, op.out.width);
    for (int r = 0; r < step_.rows; r++)
        std::fill_n(storage.grid.data() + static_cast<size_t>(r) * storage.stride + first,
                    (panels.to - panels.from) * kPanel, int64_t{0});
    for (size_t i = 0; i < routing.experts.size(); i++) {
        const ExpertRows& one = routing.experts[i];
        const Matrix& matrix = expert_matrix(op, one.expert);
        ProductArgs args{};
        args.activations = inputs[i];
        args.grid = storage.grid.data();
        args.factors = routing.weights.data() + one.first;
        args.add = true;
        expert_product(op, matrix, routing, one, panels, input_bytes(matrix), args, member);
        if (op.vector < 0) continue;
        const float* bias = program_.vectors[static_cast<size_t>(op.vector)].values.data() +
                            static_cast<size_t>(one.expert) * static_cast<size_t>(op.out.width);
        for (int entry = one.first; entry < one.first + one.count; entry++) {
            const auto e = static_cast<size_t>(entry);
            if (!kernels_.grid_bias(bias + first, routing.weights[e],
                                    storage.grid.data() + routing.places[e] + first, stop - first))
                fail(op, op.name + ": a bias is not finite or too large for the grid");
        }
    }
}

// An expert's rows with some panels of its matrix. In pieces that take well under a second.
void Executor::expert_product(const Op& op, const Matrix& matrix, const Routing& routing,
                              const ExpertRows& one, Span panels, size_t bytes, ProductArgs args,
                              int member) {
    const size_t each = panel_bytes(matrix.format, matrix.layout);
    args.rows = one.count;
    args.layout = matrix.layout;
    args.x = reinterpret_cast<const float*>(args.activations);
    args.ldx = bytes / sizeof(float);
    args.activation_stride = bytes;
    args.panel_stride = each;
    args.ahead = fetch_ahead_;
    args.places = routing.places.data() + one.first;
    const int piece = panels_of_a_piece(matrix, one.count);
    for (int from = panels.from; from < panels.to; from += piece) {
        tick(member);
        ProductArgs some = args;
        some.num_panels = std::min(piece, panels.to - from);
        some.panels = matrix.panels + static_cast<size_t>(from) * each;
        some.outputs = std::min(matrix.outputs, (from + some.num_panels) * kPanel) - from * kPanel;
        const auto format = static_cast<size_t>(matrix.format);
        if (args.grid) {
            some.grid += from * kPanel;
            kernels_.linear_grid[format](some);
            if (some.bad) fail(op, op.name + ": a sum is not finite or too large for the grid");
        } else {
            some.y += from * kPanel;
            if (some.bias) some.bias += from * kPanel;
            kernels_.linear[format](some);
        }
    }
}

void Executor::count_experts(const Op& op, int member) {
    if (member != 0) return;
    for (const ExpertRows& one : routings_[0].experts)
        bill_->weight_bytes += expert_matrix(op, one.expert).bytes();
}

void Executor::expert_mul(const Op& op, int member) {
    const int pieces = op.top_k + (op.shared_width > 0);
    const Span own = part(step_.rows * pieces, member, team_.members());
    for (int i = own.from; i < own.to; i++) {
        const int r = i / pieces, s = i % pieces;
        const int width = s < op.top_k ? op.width : op.shared_width;
        if (width == 0) continue;
        const float* gate = row(op.a, r) + 2 * slot_offset(op, s);
        kernels_.gated_mul(static_cast<GateFunction>(op.function), gate, gate + width,
                           row(op.out, r) + slot_offset(op, s), width, op.limit, op.alpha);
    }
}

// What the operations on experts need beside their buffers, for each row of a step.
size_t Executor::expert_input_bytes() const {
    size_t most = 0;
    for (const Op& op : program_.ops) {
        if (op.kind != OpKind::expert_linear && op.kind != OpKind::expert_grid) continue;
        size_t routed = 0, shared = 0;
        for (size_t i = 0; i < op.matrices.size(); i++) {
            if (op.matrices[i] < 0) continue;
            const bool last = i + 1 == op.matrices.size() && op.b.width / 2 > op.top_k;
            size_t& own = last ? shared : routed;
            own =
                std::max(own, input_bytes(program_.matrices[static_cast<size_t>(op.matrices[i])]));
        }
        most = std::max(most, static_cast<size_t>(op.top_k) * routed + shared);
    }
    return most;
}

}  // namespace bw
