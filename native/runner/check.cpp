// What a dumped program must hold to before an executor runs it: every index inside its table,
// every view inside its buffer, every shape fitting.
#include "runner/dump_file.h"

namespace bw {

namespace {

class Checker {
  public:
    Checker(const Program& program, const Op& op) : program_(program), op_(op) {}

    void check() const {
        switch (op_.kind) {
            case OpKind::embed:
                floats(op_.out);
                require(op_.out.width == program_.hidden_size && op_.out.offset == 0);
                return alone(op_.nodes);
            case OpKind::rms_norm:
                floats(op_.a), floats(op_.out), same_rows(op_.a, op_.out);
                require(op_.groups >= 1 && op_.dim >= 1);
                require(static_cast<int64_t>(op_.groups) * op_.dim == op_.a.width);
                require(op_.a.width == op_.out.width);
                return vector(op_.dim);
            case OpKind::linear:
                floats(op_.a), floats(op_.out), same_rows(op_.a, op_.out);
                require(op_.out.offset % kPanel == 0);
                if (op_.vector >= 0) vector(op_.out.width);
                return matrix();
            case OpKind::linear_grid:
                floats(op_.a), grid(op_.out), same_rows(op_.a, op_.out);
                require(op_.out.offset == 0);
                return matrix();
            case OpKind::rope:
                floats(op_.a), step_rows(op_.a);
                require(static_cast<int64_t>(op_.heads) * op_.dim == op_.a.width);
                return require(2 * program_.inv_freq.size() <= static_cast<size_t>(op_.dim));
            case OpKind::kv_append:
                floats(op_.a), floats(op_.b), step_rows(op_.a), step_rows(op_.b);
                cache();
                require(op_.kv_heads <= program_.cache.kv_heads);
                require(static_cast<int64_t>(op_.kv_heads) * op_.dim == op_.a.width);
                return require(op_.a.width == op_.b.width);
            case OpKind::attention:
                floats(op_.a), floats(op_.out), step_rows(op_.a), step_rows(op_.out);
                cache();
                require(static_cast<int64_t>(op_.heads) * op_.dim == op_.a.width);
                require(op_.a.width == op_.out.width);
                require(op_.kv_map.size() == static_cast<size_t>(op_.heads));
                for (int head : op_.kv_map) require(head < program_.cache.kv_heads);
                return;
            case OpKind::silu_mul:
                floats(op_.a), floats(op_.b), floats(op_.out);
                step_rows(op_.a), step_rows(op_.b), step_rows(op_.out);
                return require(op_.a.width == op_.out.width && op_.b.width == op_.out.width);
            case OpKind::all_reduce_add:
                grid(op_.a), floats(op_.b), floats(op_.out), step_rows(op_.a), step_rows(op_.out);
                require(op_.a.width == op_.out.width && op_.a.offset == 0 && op_.out.offset == 0);
                require(op_.b.buffer == op_.out.buffer && op_.b.width == op_.out.width);
                if (op_.vector >= 0) vector(op_.out.width);
                alone(op_.contributors);
                return alone(op_.nodes);
            case OpKind::take_rows:
                floats(op_.a), floats(op_.out), step_rows(op_.a);
                require(buffer(op_.out).logit_rows);
                return require(op_.a.width == op_.out.width);
            case OpKind::gather_logits:
                floats(op_.a), floats(op_.out), same_rows(op_.a, op_.out);
                require(op_.owners.size() == 1 && op_.owners[0][0] == 0 && op_.owners[0][1] == 0);
                require(op_.owners[0][2] == program_.vocab_size && buffer(op_.out).logit_rows);
                require(op_.a.width == program_.vocab_size && op_.a.offset == 0);
                return require(op_.out.width == program_.vocab_size && op_.out.offset == 0);
            case OpKind::recv:
            case OpKind::send:
                require(false);
        }
    }

  private:
    void require(bool holds) const {
        if (!holds) throw DumpError("operation " + op_.name + " does not fit its program");
    }
    const Buffer& buffer(const View& view) const {
        require(view.buffer >= 0 && static_cast<size_t>(view.buffer) < program_.buffers.size());
        return program_.buffers[static_cast<size_t>(view.buffer)];
    }
    void inside(const View& view, bool grid) const {
        const Buffer& held = buffer(view);
        require(held.grid == grid && view.width >= 1);
        require(static_cast<int64_t>(view.offset) + view.width <= held.width);
    }
    void floats(const View& view) const { inside(view, false); }
    void grid(const View& view) const { inside(view, true); }
    void step_rows(const View& view) const { require(!buffer(view).logit_rows); }
    void same_rows(const View& a, const View& b) const {
        require(buffer(a).logit_rows == buffer(b).logit_rows);
    }
    void alone(const std::vector<int>& nodes) const { require(nodes == std::vector<int>{0}); }
    void vector(int size) const {
        require(op_.vector >= 0 && static_cast<size_t>(op_.vector) < program_.vectors.size());
        require(program_.vectors[static_cast<size_t>(op_.vector)].size() ==
                static_cast<size_t>(size));
    }
    void matrix() const {
        require(op_.matrix >= 0 && static_cast<size_t>(op_.matrix) < program_.matrices.size());
        const Matrix& m = program_.matrices[static_cast<size_t>(op_.matrix)];
        require(m.layout.k == op_.a.width && m.outputs == op_.out.width);
    }
    void cache() const {
        require(op_.cache < program_.cache.layers && op_.dim == program_.cache.dim);
    }

    const Program& program_;
    const Op& op_;
};

}  // namespace

void check_program(const Program& program) {
    if (program.ops.empty() || program.ops.back().kind != OpKind::gather_logits)
        throw DumpError("the program does not end with logits");
    for (const Op& op : program.ops) Checker(program, op).check();
}

}  // namespace bw
