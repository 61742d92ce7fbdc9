#include "fuzz/mesh_model.h"

#include <numeric>
#include <string>

namespace bw::fuzz {

namespace {

constexpr int kUnit = 8;  // columns

}  // namespace

// Writes one node's program, operation by operation.
class MeshWriter {
  public:
    MeshWriter(const MeshModel& model, int node, int num_nodes, Weights& weights)
        : model_(model), node_(node), num_nodes_(num_nodes), weights_(weights) {
        p_.node = node;
        p_.num_nodes = num_nodes;
        p_.hidden_size = model.hidden_size;
        p_.vocab_size = model.vocab_size;
        x_ = buffer(model.hidden_size);
        grid_ = buffer(model.hidden_size, true);
        if (stages()) {
            group_ = {node};
        } else {
            group_.resize(static_cast<size_t>(num_nodes));
            std::iota(group_.begin(), group_.end(), 0);
        }
    }

    Program write() {
        if (stages() && node_ > 0)
            op(OpKind::recv, 50 + node_, {}, x_).peers = {node_ - 1};
        else
            op(OpKind::embed, 1, {}, x_).group = group_;
        const auto [from, to] = model_.layers_of(node_, num_nodes_);
        for (int layer = from; layer < to; layer++) add_layer(layer);
        if (stages() && node_ + 1 < num_nodes_)
            op(OpKind::send, 51 + node_, x_, {}).peers = {node_ + 1};
        logits();
        return std::move(p_);
    }

  private:
    using Range = MeshModel::Range;

    bool stages() const { return model_.in_stages && num_nodes_ > 1; }

    View buffer(int width, bool grid = false, bool logit_rows = false) {
        p_.buffers.push_back({width, grid, logit_rows});
        return {static_cast<int>(p_.buffers.size()) - 1, 0, width};
    }
    Op& op(OpKind kind, int tag, View in, View out) {
        Op op;
        op.kind = kind;
        op.name = "operation " + std::to_string(tag);
        op.a = in;
        op.out = out;
        op.tag = static_cast<uint32_t>(tag);
        p_.ops.push_back(op);
        return p_.ops.back();
    }
    // Some outputs and some inputs of a dense matrix.
    int matrix(const MeshModel::Dense& dense, Range outputs, Range inputs, int unit) {
        p_.matrices.push_back(
            weights_.add_floats(inputs.size(), unit, outputs.size(), [&](int output, int input) {
                return dense.values[static_cast<size_t>((outputs.from + output) * dense.inputs +
                                                        inputs.from + input)];
            }));
        return static_cast<int>(p_.matrices.size()) - 1;
    }

    void add_layer(int layer) {
        const auto& [up, down] = model_.layers_[static_cast<size_t>(layer)];
        const Range hidden{0, model_.hidden_size};
        const Range own = model_.columns_of(node_, num_nodes_);
        if (own.size() > 0) {
            const View columns = buffer(own.size());
            op(OpKind::linear, 0, x_, columns).matrix = matrix(up, own, hidden, hidden.size());
            op(OpKind::linear_grid, 0, columns, grid_).matrix = matrix(down, hidden, own, kUnit);
        }
        Op& reduce = op(OpKind::all_reduce_add, 10 + layer, grid_, x_);
        reduce.b = x_;
        reduce.group = group_;
        for (int node : group_)
            if (model_.columns_of(node, num_nodes_).size() > 0) reduce.contributors.push_back(node);
    }

    void logits() {
        const Range own = model_.vocabulary_of(node_, num_nodes_), hidden{0, model_.hidden_size};
        if (own.size() == 0 && node_ > 0) return;
        View own_logits;
        if (own.size() > 0) {
            const View taken = buffer(model_.hidden_size, false, true);
            op(OpKind::take_rows, 0, x_, taken);
            own_logits = buffer(own.size(), false, true);
            op(OpKind::linear, 0, taken, own_logits).matrix =
                matrix(model_.head_, own, hidden, hidden.size());
        }
        View all;
        if (node_ == 0) all = buffer(model_.vocab_size, false, true);
        Op& gather = op(OpKind::gather_logits, 99, own_logits, all);
        for (int node = 0; node < num_nodes_; node++) {
            const Range theirs = model_.vocabulary_of(node, num_nodes_);
            if (theirs.size() > 0) gather.owners.push_back({node, theirs.from, theirs.to});
        }
    }

    const MeshModel& model_;
    const int node_, num_nodes_;
    Weights& weights_;
    Program p_;
    View x_, grid_;
    std::vector<int> group_;
};

MeshModel::MeshModel(Random& random)
    : nodes(random.between(2, 3)),
      in_stages(random.chance(30)),
      hidden_size(random.pick({8, 64, 72, 130})),
      vocab_size(random.between(4, 40)) {
    int columns = 0;
    for (int node = 0; node < nodes; node++) {
        // A node may own none, but for the last.
        columns += kUnit * random.between(node + 1 < nodes ? 0 : 1, 3);
        ends_.push_back(columns);
    }
    auto dense = [&](int outputs, int inputs) {
        Dense made{outputs, inputs, {}};
        for (int i = 0; i < outputs * inputs; i++) made.values.push_back(random.number() / 4);
        return made;
    };
    for (int layer = 0; layer < nodes; layer++)
        layers_.push_back({dense(columns, hidden_size), dense(hidden_size, columns)});
    head_ = dense(vocab_size, hidden_size);
}

MeshModel::Range MeshModel::columns_of(int node, int num_nodes) const {
    if (in_stages || num_nodes == 1) return {0, ends_.back()};
    return {node == 0 ? 0 : ends_[static_cast<size_t>(node) - 1], ends_[static_cast<size_t>(node)]};
}

MeshModel::Range MeshModel::vocabulary_of(int node, int num_nodes) const {
    if (in_stages && num_nodes > 1) return {0, node + 1 == num_nodes ? vocab_size : 0};
    return {vocab_size * node / num_nodes, vocab_size * (node + 1) / num_nodes};
}

MeshModel::Range MeshModel::layers_of(int node, int num_nodes) const {
    if (in_stages && num_nodes > 1) return {node, node + 1};
    return {0, static_cast<int>(layers_.size())};
}

Program MeshModel::write(int node, int num_nodes, Weights& weights) const {
    return MeshWriter(*this, node, num_nodes, weights).write();
}

}  // namespace bw::fuzz
