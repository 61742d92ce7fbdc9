// A node's program, built operation by operation.
#include "bindings/bindings.h"

namespace bw {

namespace {

const char* kOpNames[] = {"embed",          "recv",      "send",         "rms_norm", "linear",
                          "rope",           "kv_append", "attention",    "silu_mul", "linear_grid",
                          "all_reduce_add", "take_rows", "gather_logits"};

OpKind kind_of(const std::string& name) {
    for (int i = 0; i < static_cast<int>(std::size(kOpNames)); i++)
        if (name == kOpNames[i]) return static_cast<OpKind>(i);
    throw nb::value_error(("unknown operation " + name).c_str());
}

View view_of(const std::tuple<int, int, int>& view) {
    return {std::get<0>(view), std::get<1>(view), std::get<2>(view)};
}

}  // namespace

void bind_program(nb::module_& m) {
    nb::class_<ProgramBuilder>(m, "Program")
        .def(
            "__init__",
            [](ProgramBuilder* self, int node, int num_nodes, int hidden_size, int vocab_size,
               std::tuple<int, int, int> cache, std::vector<double> inv_freq) {
                new (self) ProgramBuilder();
                Program& p = self->program;
                p.node = node;
                p.num_nodes = num_nodes;
                p.hidden_size = hidden_size;
                p.vocab_size = vocab_size;
                p.cache = {std::get<0>(cache), std::get<1>(cache), std::get<2>(cache)};
                p.inv_freq = std::move(inv_freq);
            },
            "node"_a, "num_nodes"_a, "hidden_size"_a, "vocab_size"_a, "cache"_a, "inv_freq"_a)
        .def(
            "add_buffer",
            [](ProgramBuilder& self, int width, bool grid, bool logit_rows) {
                self.program.buffers.push_back({width, grid, logit_rows});
                return static_cast<int>(self.program.buffers.size()) - 1;
            },
            "width"_a, "grid"_a, "logit_rows"_a)
        .def(
            "add_matrix",
            [](ProgramBuilder& self, std::shared_ptr<PackedMatrix> matrix) {
                self.program.matrices.push_back(matrix->matrix);
                self.matrices.push_back(std::move(matrix));
                return static_cast<int>(self.matrices.size()) - 1;
            },
            "matrix"_a)
        .def(
            "add_vector",
            [](ProgramBuilder& self, Floats values) {
                self.program.vectors.emplace_back(values.data(), values.data() + values.size());
                return static_cast<int>(self.program.vectors.size()) - 1;
            },
            "values"_a)
        .def(
            "add_op",
            [](ProgramBuilder& self, const std::string& kind, const std::string& name,
               std::vector<std::tuple<int, int, int>> inputs,
               std::vector<std::tuple<int, int, int>> outputs, int matrix, int vector,
               nb::dict attributes) {
                Op op;
                op.kind = kind_of(kind);
                op.name = name;
                if (!inputs.empty()) op.a = view_of(inputs[0]);
                if (inputs.size() > 1) op.b = view_of(inputs[1]);
                if (!outputs.empty()) op.out = view_of(outputs[0]);
                op.matrix = matrix;
                op.vector = vector;
                for (auto [key, value] : attributes) {
                    const auto attribute = nb::cast<std::string>(key);
                    if (attribute == "groups")
                        op.groups = nb::cast<int>(value);
                    else if (attribute == "dim")
                        op.dim = nb::cast<int>(value);
                    else if (attribute == "heads")
                        op.heads = nb::cast<int>(value);
                    else if (attribute == "cache")
                        op.cache = nb::cast<int>(value);
                    else if (attribute == "kv_heads")
                        op.kv_heads = nb::cast<int>(value);
                    else if (attribute == "window")
                        op.window = nb::cast<int>(value);
                    else if (attribute == "eps")
                        op.eps = static_cast<float>(nb::cast<double>(value));
                    else if (attribute == "tag")
                        op.tag = nb::cast<uint32_t>(value);
                    else if (attribute == "kv_map")
                        op.kv_map = nb::cast<std::vector<int>>(value);
                    else if (attribute == "group" || attribute == "peers")
                        op.nodes = nb::cast<std::vector<int>>(value);
                    else if (attribute == "contributors")
                        op.contributors = nb::cast<std::vector<int>>(value);
                    else if (attribute == "owners")
                        for (auto [node, start, stop] :
                             nb::cast<std::vector<std::tuple<int, int, int>>>(value))
                            op.owners.push_back({node, start, stop});
                    else
                        throw nb::value_error(("unknown attribute " + attribute).c_str());
                }
                self.program.ops.push_back(std::move(op));
            },
            "kind"_a, "name"_a, "inputs"_a, "outputs"_a, "matrix"_a, "vector"_a, "attributes"_a);
}

}  // namespace bw
