#include <algorithm>
#include <climits>
#include <cmath>
#include <stdexcept>
#include <string>

#include "executor/check.h"

namespace bw {

namespace {

bool within(int value, int low, int high) { return low <= value && value <= high; }

// One operation against its program: what the table says of its kind, then the kind's own rules.
class Checker {
  public:
    Checker(const Program& program, const Op& op, int max_rows)
        : program_(program), op_(op), info_(op.info()), max_rows_(max_rows) {}

    void check() const {
        visit_attributes(op_.kind, static_cast<const Attributes&>(op_), CheckAttribute{*this});
        for (int i = 0; i < kViews; i++) operand(i);
        if (info_.matrix) matrix();
        if (info_.vector.read) vector();
        switch (op_.kind) {
            case OpKind::embed:
                group();
                return require(contains(op_.group, 0), "node 0 is not in its group");
            case OpKind::recv:
                peers();
                return require(op_.peers.size() == 1, "it receives from one node");
            case OpKind::send:
                return peers();
            case OpKind::linear:
                return require(op_.out.offset % kPanel == 0,
                               "its output does not begin at a panel");
            case OpKind::linear_grid:
                return require(
                    program_.matrices[static_cast<size_t>(op_.matrix)].layout.units() <= kMostUnits,
                    "its sums have too many units");
            case OpKind::rope:
                return rope();
            case OpKind::route:
                return route();
            case OpKind::expert_linear:
            case OpKind::expert_grid:
                return experts();
            case OpKind::expert_mul:
                return expert_mul();
            case OpKind::gated_mul:
                return gate();
            case OpKind::head_linear:
                return head_linear();
            case OpKind::latent_append:
            case OpKind::latent_attention:
                return latent();
            case OpKind::short_conv:
                return short_conv();
            case OpKind::l2_norm:
                return require(usual(op_.factor), "its factor is out of range");
            case OpKind::delta_gates:
                return require(op_.heads >= 1 && int64_t{2} * op_.heads == op_.a.width,
                               "its heads do not make its width");
            case OpKind::delta_rule:
                return delta_rule();
            case OpKind::kv_append:
                return cache();
            case OpKind::attention:
                return attention();
            case OpKind::all_reduce_add:
                require(op_.b.buffer == op_.out.buffer && op_.b.offset == op_.out.offset,
                        "it adds to one buffer and writes another");
                return reduction();
            case OpKind::all_reduce:
                return reduction();
            case OpKind::all_reduce_bits:
                require(op_.a.buffer == op_.out.buffer, "it sums one buffer and writes another");
                return reduction();
            case OpKind::square_sums:
                columns(op_.out);
                return require(op_.skip <= op_.heads && op_.begin <= op_.first &&
                                   op_.first <= op_.end && op_.heads <= op_.end - op_.first,
                               "it leaves its columns");
            case OpKind::norm_by_sums:
                return columns(op_.b);
            case OpKind::add:
            case OpKind::scale:
                return require(usual(op_.factor), "its factor is out of range");
            case OpKind::soft_cap:
                return require(usual(op_.cap), "its bound is out of range");
            case OpKind::gather_logits:
                return logits();
            default:
                return;
        }
    }

  private:
    struct CheckAttribute {
        const Checker& checker;

        void operator()(const char*, AttributeType type, int value) const {
            checker.index(type, value);
        }
        void operator()(const char*, AttributeType, uint32_t) const {}
        void operator()(const char*, AttributeType, float value) const {
            checker.require(std::isfinite(value), "a number is not finite");
        }
        void operator()(const char*, AttributeType type, const std::vector<int>& values) const {
            if (type == AttributeType::nodes) return checker.distinct(values);
            if (type == AttributeType::matrices) return checker.matrices(values);
            for (int value : values) checker.in_range(value);
        }
        void operator()(const char*, AttributeType,
                        const std::vector<std::array<int, 3>>& values) const {
            std::vector<int> nodes;
            for (const auto& triple : values) nodes.push_back(triple[0]);
            checker.distinct(nodes);
        }
    };

    void require(bool holds, const char* what) const {
        if (!holds)
            throw std::invalid_argument("operation " + op_.name +
                                        " does not fit its program: " + what);
    }

    // --- numbers ---

    void in_range(int value) const {
        require(within(value, 0, kMostSize), "a number is out of range");
    }
    void index(AttributeType type, int value) const {
        in_range(value);
        const auto place = static_cast<size_t>(value);
        if (type == AttributeType::cache)
            require(place < program_.caches.size(), "its KV cache does not exist");
        if (type == AttributeType::state)
            require(place < program_.states.size(), "its state does not exist");
        if (type == AttributeType::frequencies)
            require(place < program_.frequencies.size(), "its table of frequencies does not exist");
    }
    int64_t value_of(const Factor& factor) const {
        if (factor.attribute) return op_.*factor.attribute;
        return factor.hidden_size ? program_.hidden_size : op_.view(factor.view).width;
    }

    // --- views ---

    void operand(int index) const {
        const OperandInfo& info = info_.operands[index];
        const View& view = op_.view(index);
        if (info.rows == Rows::none || (info.optional && view.buffer == -1))
            return require(view.buffer == -1, "it has a view too many");
        inside(view, info.grid);
        if (info.rows == Rows::step)
            require(!buffer(view).logit_rows, "a buffer has rows of logits");
        if (info.rows == Rows::logits)
            require(buffer(view).logit_rows, "a buffer has no rows of logits");
        if (info.rows == Rows::same)
            for (const View* other : {&op_.a, &op_.b, &op_.out})
                if (other->buffer >= 0)
                    require(buffer(*other).logit_rows == buffer(view).logit_rows,
                            "its buffers have other rows");
        if (info.width[0].given()) width(info, view);
        if (info_.shared == Shared::lanes) times_rows(view.width);
    }
    void width(const OperandInfo& info, const View& view) const {
        const Factor &pieces = info.width[0], &each = info.width[1];
        if (!each.given()) {
            const char* what = pieces.hidden_size ? "its rows are not of the model's width"
                                                  : "its views have other widths";
            return require(value_of(pieces) == view.width, what);
        }
        const int64_t count = value_of(pieces), size = value_of(each);
        require(count >= 1 && size >= 1 && count * size == view.width,
                "its heads or groups do not make its width");
        times_rows(count);
    }
    const Buffer& buffer(const View& view) const {
        require(view.buffer >= 0 && static_cast<size_t>(view.buffer) < program_.buffers.size(),
                "a buffer does not exist");
        return program_.buffers[static_cast<size_t>(view.buffer)];
    }
    void inside(const View& view, bool grid) const {
        const Buffer& held = buffer(view);
        in_range(view.offset), in_range(view.width);
        require(held.grid == grid, "a buffer holds another kind of number");
        require(view.width >= 1 && view.offset + view.width <= held.width,
                "a view leaves its buffer");
        // Sums on the grid fill their buffer from its beginning.
        require(!grid || view.offset == 0, "its sums do not begin their buffer");
    }
    // Things of all rows are numbered by ints.
    void times_rows(int64_t things) const {
        require(things * max_rows_ <= INT_MAX, "so many rows of it are more than can be numbered");
    }

    // --- weights and caches ---

    void vector() const {
        if (info_.vector.optional && op_.vector == -1) return;
        require(op_.vector >= 0 && static_cast<size_t>(op_.vector) < program_.vectors.size(),
                "a vector does not exist");
        require(
            program_.vectors[static_cast<size_t>(op_.vector)].size == value_of(info_.vector.size),
            "its vector has another size");
    }
    void matrix() const {
        require(op_.matrix >= 0 && static_cast<size_t>(op_.matrix) < program_.matrices.size(),
                "a matrix does not exist");
        const Matrix& m = program_.matrices[static_cast<size_t>(op_.matrix)];
        require(m.layout.k == op_.a.width && m.outputs == op_.out.width,
                "its matrix has another shape");
    }
    void matrices(const std::vector<int>& indices) const {
        for (int index : indices)
            require(index >= -1 && index < static_cast<int>(program_.matrices.size()),
                    "a matrix does not exist");
    }
    void route() const {
        require(within(op_.experts, 1, kMostExperts), "so many experts are not believed");
        require(within(op_.top_k, 1, op_.experts), "it chooses more experts than there are");
        require(op_.scoring <= 2 && op_.group_score <= 1 && op_.shared <= 2 && op_.normalise <= 1,
                "it scores in a way that is unknown");
        require(op_.groups >= 1 && op_.experts % op_.groups == 0 &&
                    within(op_.top_groups, 1, op_.groups),
                "its groups do not share out its experts");
        require(op_.experts / op_.groups > op_.group_score &&
                    static_cast<int64_t>(op_.experts / op_.groups) * op_.top_groups >= op_.top_k,
                "its groups have too few experts");
        require(op_.a.width == op_.experts + (op_.shared == 2),
                "its logits are not one for each expert");
        require(op_.out.width == 2 * (op_.top_k + (op_.shared > 0)),
                "its routes are not one for each chosen expert");
    }
    // Routed experts are alike; the shared one stands last.
    void experts() const {
        const bool grid = op_.kind == OpKind::expert_grid, shared = op_.shared_width > 0;
        require(op_.top_k >= 1 && op_.b.width % 2 == 0 &&
                    within(op_.b.width / 2, op_.top_k, op_.top_k + 1),
                "its routes are not one for each chosen expert");
        const bool last = op_.b.width / 2 > op_.top_k;
        require(last || !shared, "its shared expert has no route");
        require(static_cast<int>(op_.matrices.size()) >= op_.top_k + last,
                "it chooses more experts than there are");
        // Threads read the routes each for itself, at any time before they are done.
        require(op_.b.buffer != op_.out.buffer, "it writes over its routes");
        const View& wide = grid ? op_.a : op_.out;
        const int64_t width = int64_t{op_.top_k} * op_.width + op_.shared_width;
        require(width == wide.width, "its experts do not make its width");
        const size_t routed = op_.matrices.size() - last;
        const Matrix* first = nullptr;
        int64_t biases = 0, units = 0;
        for (size_t i = 0; i < op_.matrices.size(); i++) {
            const int own = i < routed ? op_.width : op_.shared_width;
            biases += grid ? op_.out.width : own;
            if (op_.matrices[i] < 0) continue;
            const Matrix& m = program_.matrices[static_cast<size_t>(op_.matrices[i])];
            require(grid ? m.layout.k == own && m.outputs == op_.out.width
                         : m.layout.k == op_.a.width && m.outputs == own,
                    "a matrix has another shape");
            if (!first) first = &m;
            require(m.layout.unit == first->layout.unit || grid, "its matrices have other units");
            units = std::max<int64_t>(units, m.layout.units());
        }
        require(op_.vector < 0 || op_.biases == biases, "its biases are not one for each output");
        // A bias is a unit more of each expert's.
        units += op_.vector >= 0;
        require(!grid || units * static_cast<int64_t>(op_.b.width / 2) <= kMostUnits,
                "its sums have too many units");
        times_rows(op_.b.width);
    }
    void head_linear() const {
        const auto heads = static_cast<int>(op_.matrices.size());
        require(heads >= 1 && op_.a.width % heads == 0 && op_.out.width % heads == 0,
                "its heads do not make its width");
        times_rows(heads);
        const Matrix* first = nullptr;
        for (int index : op_.matrices) {
            require(index >= 0, "a matrix does not exist");
            const Matrix& m = program_.matrices[static_cast<size_t>(index)];
            if (!first) first = &m;
            require(m.layout.k <= op_.a.width / heads && m.outputs <= op_.out.width / heads &&
                        m.layout.k == first->layout.k && m.layout.unit == first->layout.unit &&
                        m.outputs == first->outputs,
                    "a matrix has another shape");
        }
    }
    void latent() const {
        const CacheShape& cache = program_.caches[static_cast<size_t>(op_.cache)];
        require(cache.latent && cache.kv_heads == 1 && op_.k_dim == cache.k_dim,
                "it leaves the KV cache");
        require(op_.kind == OpKind::latent_append || op_.v_dim == cache.v_dim,
                "it leaves the KV cache");
    }
    void short_conv() const {
        const StateShape& state = program_.states[static_cast<size_t>(op_.state)];
        require(within(op_.kernel, 1, kMostTaps), "so long a convolution is not believed");
        require(state.heads == 0 && state.row == op_.a.width && state.history == op_.kernel - 1,
                "it leaves its state");
        require(int64_t{op_.kernel} * op_.a.width == op_.weights,
                "its weights are not those of its channels");
        // Rows are read when those before them are written.
        require(op_.a.buffer != op_.out.buffer, "it writes over what it has yet to read");
    }
    void delta_rule() const {
        const StateShape& state = program_.states[static_cast<size_t>(op_.state)];
        require(op_.heads == state.heads && op_.k_dim == state.k_dim && op_.v_dim == state.v_dim &&
                    op_.k_dim >= 1 && op_.v_dim >= 1 && state.history == 0 &&
                    int64_t{op_.heads} * (op_.k_dim + op_.v_dim + 2) == state.row,
                "it leaves its state");
        require(op_.key_heads >= 1 && op_.heads >= 1 && op_.heads % op_.key_heads == 0,
                "its heads do not share its keys");
        require(int64_t{2} * op_.key_heads * op_.k_dim + int64_t{op_.heads} * op_.v_dim ==
                        op_.a.width &&
                    int64_t{2} * op_.heads == op_.b.width,
                "its heads do not make its width");
        require(op_.out.buffer != op_.a.buffer && op_.out.buffer != op_.b.buffer,
                "it writes over what it has yet to read");
        times_rows(op_.heads);
    }
    void expert_mul() const {
        const int64_t width = int64_t{op_.top_k} * op_.width + op_.shared_width;
        require(width == op_.out.width && 2 * width == op_.a.width,
                "its experts do not make its width");
        times_rows(op_.top_k + 1);
        gate();
    }
    void rope() const {
        const auto& table = program_.frequencies[static_cast<size_t>(op_.table)];
        require(static_cast<size_t>(op_.rotary) == 2 * table.values.size(),
                "it rotates other than two elements for each of its frequencies");
        require(op_.offset <= op_.dim && op_.rotary <= op_.dim - op_.offset,
                "it rotates more than a head");
        require(op_.interleaved <= 1, "it neither pairs halves nor neighbours");
        require(op_.to_offset <= op_.to_dim && op_.rotary <= op_.to_dim - op_.to_offset,
                "it writes more than a head");
        const bool same = op_.a.buffer == op_.out.buffer;
        require(!same || (op_.a.offset == op_.out.offset && op_.dim == op_.to_dim &&
                          op_.offset == op_.to_offset),
                "it writes over what it has yet to rotate");
    }
    // Numbers by which nothing that is stored becomes subnormal.
    static bool usual(float number) { return 0x1p-20f <= number && number <= 0x1p20f; }
    void columns(const View& grid) const {
        require(op_.begin < op_.end && op_.end <= grid.width, "its sums leave their buffer");
        require(int64_t{op_.end - op_.begin} * op_.dim <= kMostSize, "a number is out of range");
    }
    void gate() const {
        require(op_.function < kGateFunctions, "the function of its gate is unknown");
        if (static_cast<GateFunction>(op_.function) != GateFunction::clamped_silu) return;
        // Beyond these a number that is subnormal on the way could show (docs/numerics.md).
        for (float number : {op_.limit, op_.alpha})
            require(0.0f < number && number <= 0x1p20f, "the bounds of its gate are out of range");
    }
    void cache() const {
        const CacheShape& cache = program_.caches[static_cast<size_t>(op_.cache)];
        require(!cache.latent, "its KV cache is a latent one");
        require(
            op_.k_dim == cache.k_dim && op_.v_dim == cache.v_dim && op_.kv_heads <= cache.kv_heads,
            "it leaves the KV cache");
    }
    void attention() const {
        require(op_.cap == 0.0f || usual(op_.cap), "the bound of its scores is out of range");
        require(op_.kv_map.size() == static_cast<size_t>(op_.heads),
                "not every head has its KV head");
        cache();
        const CacheShape& cache = program_.caches[static_cast<size_t>(op_.cache)];
        for (int head : op_.kv_map)
            require(within(head, 0, cache.kv_heads - 1), "it leaves the KV cache");
    }

    // --- nodes ---

    static bool contains(const std::vector<int>& nodes, int node) {
        return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
    }
    void distinct(std::vector<int> nodes) const {
        require(nodes.size() <= static_cast<size_t>(program_.num_nodes), "it names too many nodes");
        std::sort(nodes.begin(), nodes.end());
        require(std::adjacent_find(nodes.begin(), nodes.end()) == nodes.end(),
                "it names a node twice");
        for (int node : nodes)
            require(within(node, 0, program_.num_nodes - 1), "it names a node that is not there");
    }
    void group() const {
        require(contains(op_.group, program_.node), "this node is not in its group");
    }
    void peers() const {
        require(!op_.peers.empty() && !contains(op_.peers, program_.node),
                "its peers are not other nodes");
    }
    void reduction() const {
        group();
        for (int node : op_.contributors)
            require(contains(op_.group, node), "a contributor is not in its group");
    }
    // The owners' ranges follow each other, on node 0 over the whole vocabulary.
    void logits() const {
        int next = 0;
        bool own = false;
        for (const auto& [node, start, stop] : op_.owners) {
            require(start == next && stop > start, "its owners' ranges do not follow each other");
            next = stop;
            if (node != program_.node) continue;
            own = true;
            inside(op_.a, false);
            require(op_.a.width == stop - start, "its own range has another width");
        }
        require(next == program_.vocab_size, "its owners' ranges are not the vocabulary");
        if (program_.node != 0) return require(own, "this node has nothing to give");
        inside(op_.out, false);
        require(op_.out.width == program_.vocab_size && op_.out.offset == 0,
                "its output is not the vocabulary");
    }

    const Program& program_;
    const Op& op_;
    const OperationInfo& info_;
    const int max_rows_;
};

}  // namespace

void check_operation(const Program& program, const Op& op, int max_rows) {
    Checker(program, op, max_rows).check();
}

}  // namespace bw
