#include "executor/check.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <new>
#include <stdexcept>
#include <string>

#include "core/threads.h"
#include "exchange/exchange.h"
#include "executor/executor.h"

namespace bw {

namespace {

bool within(int value, int low, int high) { return low <= value && value <= high; }

// One operation against its program.
class Checker {
  public:
    Checker(const Program& program, const Op& op, int max_rows)
        : program_(program), op_(op), max_rows_(max_rows) {}

    void check() const {
        numbers();
        switch (op_.kind) {
            case OpKind::embed:
                whole_row(op_.out);
                group(op_.nodes);
                return require(contains(op_.nodes, 0), "node 0 is not in its group");
            case OpKind::recv:
                whole_row(op_.out);
                peers();
                return require(op_.nodes.size() == 1, "it receives from one node");
            case OpKind::send:
                whole_row(op_.a);
                return peers();
            case OpKind::rms_norm:
                floats(op_.a), floats(op_.out), same_rows(op_.a, op_.out);
                pieces(op_.groups, op_.dim, op_.a);
                same_width(op_.a, op_.out);
                return vector(op_.dim);
            case OpKind::linear:
                floats(op_.a), floats(op_.out), same_rows(op_.a, op_.out);
                require(op_.out.offset % kPanel == 0, "its output does not begin at a panel");
                if (op_.vector >= 0) vector(op_.out.width);
                return matrix();
            case OpKind::linear_grid:
                floats(op_.a), grid(op_.out), step_rows(op_.a), step_rows(op_.out);
                matrix();
                return require(
                    program_.matrices[static_cast<size_t>(op_.matrix)].layout.units() <= kMostUnits,
                    "its sums have too many units");
            case OpKind::rope:
                floats(op_.a), step_rows(op_.a);
                pieces(op_.heads, op_.dim, op_.a);
                return require(2 * program_.inv_freq.size() <= static_cast<size_t>(op_.dim),
                               "it rotates more than a head");
            case OpKind::kv_append:
                floats(op_.a), floats(op_.b), step_rows(op_.a), step_rows(op_.b);
                pieces(op_.kv_heads, op_.dim, op_.a);
                same_width(op_.a, op_.b);
                return cache(op_.kv_heads);
            case OpKind::attention:
                floats(op_.a), floats(op_.out), step_rows(op_.a), step_rows(op_.out);
                pieces(op_.heads, op_.dim, op_.a);
                same_width(op_.a, op_.out);
                return kv_map();
            case OpKind::silu_mul:
                floats(op_.a), floats(op_.b), floats(op_.out);
                step_rows(op_.a), step_rows(op_.b), step_rows(op_.out);
                same_width(op_.a, op_.out), same_width(op_.b, op_.out);
                return times_rows(op_.out.width);
            case OpKind::all_reduce_add:
                return reduction();
            case OpKind::take_rows:
                floats(op_.a), floats(op_.out), step_rows(op_.a), logit_rows(op_.out);
                return same_width(op_.a, op_.out);
            case OpKind::gather_logits:
                return logits();
        }
        require(false, "its kind is unknown");
    }

  private:
    void require(bool holds, const char* what) const {
        if (!holds)
            throw std::invalid_argument("operation " + op_.name +
                                        " does not fit its program: " + what);
    }

    // What every operation holds to, used or not.
    void numbers() const {
        for (int value :
             {op_.groups, op_.dim, op_.heads, op_.cache, op_.kv_heads, op_.window, op_.a.offset,
              op_.a.width, op_.b.offset, op_.b.width, op_.out.offset, op_.out.width})
            require(within(value, 0, kMostSize), "a number is out of range");
    }

    // --- views ---

    const Buffer& buffer(const View& view) const {
        require(view.buffer >= 0 && static_cast<size_t>(view.buffer) < program_.buffers.size(),
                "a buffer does not exist");
        return program_.buffers[static_cast<size_t>(view.buffer)];
    }
    void inside(const View& view, bool grid) const {
        const Buffer& held = buffer(view);
        require(held.grid == grid, "a buffer holds another kind of number");
        require(view.width >= 1 && view.offset + view.width <= held.width,
                "a view leaves its buffer");
    }
    void floats(const View& view) const { inside(view, false); }
    // Sums on the grid fill their buffer from its beginning.
    void grid(const View& view) const {
        inside(view, true);
        require(view.offset == 0, "its sums do not begin their buffer");
    }
    void step_rows(const View& view) const {
        require(!buffer(view).logit_rows, "a buffer has rows of logits");
    }
    void logit_rows(const View& view) const {
        require(buffer(view).logit_rows, "a buffer has no rows of logits");
    }
    void same_rows(const View& a, const View& b) const {
        require(buffer(a).logit_rows == buffer(b).logit_rows, "its buffers have other rows");
    }
    void same_width(const View& a, const View& b) const {
        require(a.width == b.width, "its views have other widths");
    }
    // Rows as they cross between nodes.
    void whole_row(const View& view) const {
        floats(view), step_rows(view);
        require(view.width == program_.hidden_size, "its rows are not of the model's width");
    }

    // --- what members share out ---

    // Things of all rows are numbered by ints.
    void times_rows(int things) const {
        require(static_cast<int64_t>(things) * max_rows_ <= INT_MAX,
                "so many rows of it are more than can be numbered");
    }
    void pieces(int count, int dim, const View& view) const {
        require(count >= 1 && dim >= 1 && static_cast<int64_t>(count) * dim == view.width,
                "its heads or groups do not make its width");
        times_rows(count);
    }

    // --- weights and caches ---

    void vector(int size) const {
        require(op_.vector >= 0 && static_cast<size_t>(op_.vector) < program_.vectors.size(),
                "a vector does not exist");
        require(
            program_.vectors[static_cast<size_t>(op_.vector)].size() == static_cast<size_t>(size),
            "its vector has another size");
    }
    void matrix() const {
        require(op_.matrix >= 0 && static_cast<size_t>(op_.matrix) < program_.matrices.size(),
                "a matrix does not exist");
        const Matrix& m = program_.matrices[static_cast<size_t>(op_.matrix)];
        require(m.layout.k == op_.a.width && m.outputs == op_.out.width,
                "its matrix has another shape");
    }
    void cache(int kv_heads) const {
        require(op_.cache < program_.cache.layers && op_.dim == program_.cache.dim &&
                    kv_heads <= program_.cache.kv_heads,
                "it leaves the KV cache");
    }
    void kv_map() const {
        require(op_.kv_map.size() == static_cast<size_t>(op_.heads),
                "not every head has its KV head");
        cache(0);
        for (int head : op_.kv_map)
            require(within(head, 0, program_.cache.kv_heads - 1), "it leaves the KV cache");
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
    void group(const std::vector<int>& nodes) const {
        distinct(nodes);
        require(contains(nodes, program_.node), "this node is not in its group");
    }
    void peers() const {
        distinct(op_.nodes);
        require(!op_.nodes.empty() && !contains(op_.nodes, program_.node),
                "its peers are not other nodes");
    }
    void reduction() const {
        grid(op_.a), floats(op_.b), floats(op_.out), step_rows(op_.a), step_rows(op_.out);
        same_width(op_.a, op_.out), same_width(op_.b, op_.out);
        require(op_.b.buffer == op_.out.buffer && op_.b.offset == op_.out.offset,
                "it adds to one buffer and writes another");
        times_rows(op_.out.width);
        if (op_.vector >= 0) vector(op_.out.width);
        group(op_.nodes);
        distinct(op_.contributors);
        for (int node : op_.contributors)
            require(contains(op_.nodes, node), "a contributor is not in its group");
    }
    // The owners' ranges follow each other, on node 0 over the whole vocabulary.
    void logits() const {
        std::vector<int> nodes;
        int next = 0;
        bool own = false;
        for (const auto& [node, start, stop] : op_.owners) {
            nodes.push_back(node);
            require(start == next && stop > start, "its owners' ranges do not follow each other");
            next = stop;
            if (node != program_.node) continue;
            own = true;
            floats(op_.a), logit_rows(op_.a);
            require(op_.a.width == stop - start, "its own range has another width");
        }
        distinct(nodes);
        require(next == program_.vocab_size, "its owners' ranges are not the vocabulary");
        if (program_.node != 0) return require(own, "this node has nothing to give");
        floats(op_.out), logit_rows(op_.out);
        require(op_.out.width == program_.vocab_size && op_.out.offset == 0,
                "its output is not the vocabulary");
    }

    const Program& program_;
    const Op& op_;
    const int max_rows_;
};

void require(bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(std::string("this program cannot be run: ") + what);
}

}  // namespace

void check_program(const Program& program, int max_rows) {
    require(
        within(program.num_nodes, 1, kMostNodes) && within(program.node, 0, program.num_nodes - 1),
        "its node is none of its nodes");
    require(within(program.hidden_size, 1, kMostSize) && within(program.vocab_size, 1, kMostSize),
            "its width or its vocabulary is out of range");
    // A node may have no layers and no heads.
    require(within(program.cache.layers, 0, kMostLayers) &&
                within(program.cache.kv_heads, 0, kMostKvHeads) &&
                within(program.cache.dim, 1, kMostHeadDim),
            "the shape of its KV cache is out of range");
    require(program.inv_freq.size() <= kMostHeadDim, "it has too many frequencies");
    for (double frequency : program.inv_freq)
        require(std::fabs(frequency) <= kMostFrequency, "a frequency is out of range");
    for (const Buffer& buffer : program.buffers)
        require(within(buffer.width, 1, kMostSize), "a buffer's width is out of range");
    for (const Matrix& matrix : program.matrices) {
        require(within(matrix.layout.k, 1, kMostSize) && within(matrix.layout.unit, 1, kMostSize) &&
                    within(matrix.outputs, 1, kMostSize) && matrix.panels != nullptr,
                "the shape of a matrix is out of range");
        require(within(static_cast<int>(matrix.format), 0, 3), "a matrix's format is unknown");
    }
    for (const auto& vector : program.vectors)
        require(vector.size() <= static_cast<size_t>(kMostSize), "a vector is too long");
    require(program.ops.size() <= kMostOps, "it has too many operations");
    for (const Op& op : program.ops) Checker(program, op, max_rows).check();
}

void check_options(const ExecutorOptions& options) {
    require(within(options.max_rows, 1, kMostRows), "rows of a step must be 1 to 1048576");
    require(
        within(options.num_pages, 0, kMostPages) && within(options.max_slots_pages, 0, kMostPages),
        "KV pages must be 0 to 16777216");
    require(within(options.threads, 1, kMostThreads), "threads must be 1 to 1024");
    require(within(options.overlap_rows, 0, kMostRows), "rows that overlap must be 0 to 1048576");
    require(options.fetch_ahead <= kMostSize, "fetching so far ahead makes no sense");
    require(options.kernels != nullptr, "no kernels were chosen");
}

void check_mesh(const Program& program, const Exchange* exchange) {
    if (!exchange)
        return require(program.num_nodes == 1,
                       "it belongs to several nodes, but this one is linked to none");
    require(exchange->node() == program.node && exchange->num_nodes() == program.num_nodes,
            "it belongs to another node than the links do");
    require(exchange->complete(), "this node is not linked to all others");
}

size_t checked_product(std::initializer_list<size_t> sizes) {
    size_t product = 1;
    for (size_t size : sizes)
        if (__builtin_mul_overflow(product, size, &product)) throw std::bad_alloc();
    return product;
}

}  // namespace bw
