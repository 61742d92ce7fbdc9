// Gated delta nets: the convolution before them, their gates, and the states that rows change.
#include <algorithm>
#include <cstring>
#include <new>

#include "executor/check.h"
#include "executor/executor.h"
#include "executor/span.h"

namespace bw {

namespace {

constexpr int kColumns = 64;  // of a state that stay in the nearest cache for all rows

// Some columns of a matrix; zeros where there is nothing to copy.
void copy_columns(const float* from, float* to, int rows, size_t stride, int columns) {
    const size_t bytes = sizeof(float) * static_cast<size_t>(columns);
    for (int i = 0; i < rows; i++) {
        const size_t at = static_cast<size_t>(i) * stride;
        if (from)
            std::memcpy(to + at, from + at, bytes);
        else
            std::memset(to + at, 0, bytes);
    }
}

}  // namespace

// A member has some of the channels of all rows, and of the rows that the slots keep.
void Executor::short_conv(const Op& op, int member) {
    const LayerState& state = states_[static_cast<size_t>(op.state)];
    const int history = op.kernel - 1, width = op.a.width, blocks = padded(width) / 16;
    const Span own = part(blocks, member, team_.members());
    const int from = own.from * 16, count = std::min(own.to * 16, width) - from;
    if (count <= 0) return;
    ConvArgs args{};
    args.weights = program_.vectors[static_cast<size_t>(op.vector)].values.data();
    args.taps = op.kernel;
    args.from = from;
    args.count = count;
    std::vector<const float*>& rows = conv_rows_[static_cast<size_t>(member)].in;
    std::vector<float*>& made = conv_rows_[static_cast<size_t>(member)].out;
    for (const Turn& turn : book_.turns()) {
        rows.clear(), made.clear();
        for (int i = 0; i < history; i++)
            rows.push_back(turn.fresh ? zeros_.data() : state.row(turn.read, turn.replayed + i));
        for (int place = turn.rows.from; place < turn.rows.to; place++) {
            const int r = book_.rows()[static_cast<size_t>(place)];
            rows.push_back(row(op.a, r));
            made.push_back(row(op.out, r));
        }
        args.rows = static_cast<int>(made.size());
        args.x = rows.data();
        args.y = made.data();
        kernels_.short_conv(args);
        const size_t bytes = sizeof(float) * static_cast<size_t>(count);
        auto keep = [&](int slot, int place, int source) {
            std::memmove(state.row(slot, place) + from, rows[static_cast<size_t>(source)] + from,
                         bytes);
        };
        if (turn.keep >= 0)
            for (int i = 0; i < history; i++) keep(turn.keep, i, turn.kept + i);
        // In place, a row comes from as far behind or farther: none is read after it is written.
        for (int i = 0; i < static_cast<int>(rows.size()) - turn.certain; i++)
            keep(turn.write, i, turn.certain + i);
    }
}

void Executor::l2_norm(const Op& op, int member) {
    const Span own = part(step_.rows * op.groups, member, team_.members());
    for (int i = own.from; i < own.to; i++) {
        const int r = i / op.groups, at = i % op.groups * op.dim;
        kernels_.l2_norm(row(op.a, r) + at, row(op.out, r) + at, op.dim, op.eps, op.factor);
    }
}

void Executor::delta_gates(const Op& op, int member) {
    const float* rate = program_.vectors[static_cast<size_t>(op.vector)].values.data();
    const Span own = part(step_.rows, member, team_.members());
    for (int r = own.from; r < own.to; r++) {
        const float* x = row(op.a, r);
        float* y = row(op.out, r);
        kernels_.sigmoid(x, y, op.heads);
        kernels_.decay(x + op.heads, rate, rate + op.heads, y + op.heads, op.heads);
    }
}

void Executor::delta_rule(const Op& op, int member) {
    const int turns = static_cast<int>(book_.turns().size());
    stealing_.begin(member);
    for (Span some{}; stealing_.take(member, turns * op.heads, &some);)
        for (int i = some.from; i < some.to; i++) {
            tick(member);
            change_state(op, book_.turns()[static_cast<size_t>(i / op.heads)], i % op.heads,
                         member);
        }
}

// One head's state in a sequence's turn. Its columns never meet, so that a few of them go through
// all rows before the next ones do.
void Executor::change_state(const Op& op, const Turn& turn, int head, int member) {
    const LayerState& state = states_[static_cast<size_t>(op.state)];
    const auto stride = static_cast<size_t>(padded(op.v_dim));
    const int keys = op.key_heads * op.k_dim, own_key = head / (op.heads / op.key_heads) * op.k_dim;
    const int values = 2 * keys + head * op.v_dim;
    // What a state changes by, as it is kept of a row: key, value, and what is written and kept.
    const int width = op.k_dim + op.v_dim + 2, kept_at = head * width;
    float* matrix = state.matrix(turn.write, head);
    const float* before = turn.fresh ? nullptr : state.matrix(turn.read, head);
    float* drafted = reinterpret_cast<float*>(scratch_[static_cast<size_t>(member)].data());
    const int rows = turn.rows.to - turn.rows.from;
    for (int c = 0; c < op.v_dim; c += kColumns) {
        DeltaArgs args{};
        args.stride = stride;
        args.k_dim = op.k_dim;
        args.columns = std::min(kColumns, op.v_dim - c);
        args.state = matrix + c;
        const int wide = padded(args.columns);
        if (before != matrix)
            copy_columns(before ? before + c : nullptr, args.state, op.k_dim, stride, wide);
        for (int i = 0; i < turn.replayed; i++) {
            const float* kept = state.row(turn.read, i) + kept_at;
            args.k = kept;
            args.v = kept + op.k_dim + c;
            args.write = kept[width - 2];
            args.keep = kept[width - 1];
            kernels_.delta_rule(args);
        }
        for (int i = 0; i < rows; i++) {
            const int r = book_.rows()[static_cast<size_t>(turn.rows.from + i)];
            const float* x = row(op.a, r);
            if (i == turn.certain) {
                copy_columns(args.state, drafted + c, op.k_dim, stride, wide);
                args.state = drafted + c;
            }
            args.q = x + own_key;
            args.k = x + keys + own_key;
            args.v = x + values + c;
            args.write = row(op.b, r)[head];
            args.keep = row(op.b, r)[op.heads + head];
            args.out = row(op.out, r) + head * op.v_dim + c;
            kernels_.delta_rule(args);
            if (turn.keep >= 0 && i + 1 == turn.kept)
                copy_columns(args.state, state.matrix(turn.keep, head) + c, op.k_dim, stride, wide);
        }
    }
    for (int i = turn.certain; i < rows; i++) {
        const int r = book_.rows()[static_cast<size_t>(turn.rows.from + i)];
        const float* x = row(op.a, r);
        float* kept = state.row(turn.write, i - turn.certain) + kept_at;
        std::copy_n(x + keys + own_key, op.k_dim, kept);
        std::copy_n(x + values, op.v_dim, kept + op.k_dim);
        kept[width - 2] = row(op.b, r)[head];
        kept[width - 1] = row(op.b, r)[op.heads + head];
    }
}

void Executor::make_states() {
    size_t total = 0;
    std::vector<size_t> sizes;
    for (const StateShape& shape : program_.states) {
        states_.push_back(layer_state(shape, options_.max_drafted));
        sizes.push_back(checked_product(
            {sizeof(float), states_.back().slot_floats, static_cast<size_t>(options_.num_states)}));
        sizes.back() = (sizes.back() + 63) / 64 * 64;
        if (__builtin_add_overflow(total, sizes.back(), &total)) throw std::bad_alloc();
        zeros_ = Zeroed<float>(std::max(zeros_.size(), states_.back().row_floats));
    }
    state_memory_ = std::make_unique<Arena>(total);
    for (size_t i = 0; i < states_.size(); i++)
        states_[i].data = reinterpret_cast<float*>(state_memory_->take(sizes[i]));
    conv_rows_.resize(static_cast<size_t>(team_.members()));
}

// A state that drafted rows change, which nobody keeps.
size_t Executor::state_scratch() const {
    size_t most = 0;
    for (const StateShape& shape : program_.states)
        most = std::max(most, sizeof(float) * layer_state(shape, 0).matrix_floats);
    return most;
}

}  // namespace bw
