// The Python module bandweave._native: thin, checked, and without the GIL while it computes.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "core/arena.h"
#include "core/checksum.h"
#include "core/float_mode.h"
#include "core/numerics.h"
#include "exchange/exchange.h"
#include "executor/executor.h"
#include "executor/place.h"
#include "kernels/isa.h"
#include "kernels/pack.h"
#include "probe/plain_read.h"
#include "verify/golden.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace bw;

namespace {

using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const int32_t, nb::c_contig, nb::device::cpu>;

Format format_of(const std::string& name) {
    if (name == "f32") return Format::f32;
    if (name == "bf16") return Format::bf16;
    if (name == "q8") return Format::q8;
    if (name == "q4") return Format::q4;
    throw nb::value_error("weight formats are f32, bf16, q8 and q4");
}

WireFormat wire_format_of(const std::string& name) {
    if (name == "exact") return WireFormat::exact;
    if (name == "bf16") return WireFormat::bf16;
    if (name == "q8") return WireFormat::q8;
    throw nb::value_error("wire formats are exact, bf16 and q8");
}

const char* kOpNames[] = {"embed",          "recv",      "send",         "rms_norm", "linear",
                          "rope",           "kv_append", "attention",    "silu_mul", "linear_grid",
                          "all_reduce_add", "take_rows", "gather_logits"};

OpKind kind_of(const std::string& name) {
    for (int i = 0; i < static_cast<int>(std::size(kOpNames)); i++)
        if (name == kOpNames[i]) return static_cast<OpKind>(i);
    throw nb::value_error(("unknown operation " + name).c_str());
}

// A matrix in an arena, which it keeps alive.
struct PackedMatrix {
    std::shared_ptr<Arena> arena;
    Matrix matrix;
    uint8_t* panels;

    PackedMatrix(std::shared_ptr<Arena> owner, const std::string& format, int outputs, int inputs,
                 int unit)
        : arena(std::move(owner)) {
        matrix.format = format_of(format);
        matrix.layout = {inputs, unit};
        matrix.outputs = outputs;
        if (outputs < 1 || inputs < 1 || unit < 1)
            throw nb::value_error("a matrix needs outputs, inputs and a unit of at least 1");
        panels = arena->take(matrix.bytes());
        matrix.panels = panels;
    }

    void pack(int first, nb::ndarray<nb::ndim<2>, nb::device::cpu, nb::ro> values) {
        const auto rows = static_cast<int>(values.shape(0));
        if (first < 0 || first + rows > matrix.outputs ||
            static_cast<int>(values.shape(1)) != matrix.layout.k)
            throw nb::value_error("the rows do not fit the matrix");
        if (values.stride(1) != 1 && values.shape(1) > 1)
            throw nb::value_error("rows must be contiguous");
        Source source;
        if (values.dtype() == nb::dtype<float>())
            source = Source::f32;
        else if (values.dtype() == nb::dtype<uint16_t>())
            source = Source::bf16;
        else if (values.dtype().code == static_cast<uint8_t>(nb::dlpack::dtype_code::Float) &&
                 values.dtype().bits == 16)
            source = Source::f16;
        else
            throw nb::value_error("weights must be float32, float16, or uint16 holding bf16");
        std::string wrong;
        {
            nb::gil_scoped_release released;
            const FloatMode mode;
            wrong = pack_rows(matrix.format, matrix.layout, panels, first, source, values.data(),
                              static_cast<size_t>(values.stride(0)), rows);
        }
        if (!wrong.empty()) throw nb::value_error(wrong.c_str());
    }
};

struct ProgramBuilder {
    Program program;
    std::vector<std::shared_ptr<PackedMatrix>> matrices;  // kept alive
};

View view_of(const std::tuple<int, int, int>& view) {
    return {std::get<0>(view), std::get<1>(view), std::get<2>(view)};
}

struct PyExecutor {
    std::vector<std::shared_ptr<PackedMatrix>> matrices;
    std::shared_ptr<Exchange> exchange;
    std::unique_ptr<Executor> executor;
};

StepRows rows_of(const Ints& tokens, const Ints& slots, const Ints& positions, const Ints& wants,
                 const Ints& tables) {
    const size_t rows = tokens.size();
    if (slots.size() != rows || positions.size() != rows || wants.size() != rows ||
        tables.ndim() != 2)
        throw nb::value_error("a step's arrays must have one entry a row");
    StepRows step;
    step.rows = static_cast<int>(rows);
    step.slots = static_cast<int>(tables.shape(0));
    step.pages = static_cast<int>(tables.shape(1));
    step.tokens = tokens.data();
    step.slot_of = slots.data();
    step.positions = positions.data();
    step.wants = wants.data();
    step.tables = tables.data();
    return step;
}

void check_embeddings(const Executor& executor, const Ints& tokens, const Floats& embeddings) {
    if (embeddings.ndim() != 2 || embeddings.shape(0) != tokens.size() ||
        static_cast<int>(embeddings.shape(1)) != executor.program().hidden_size)
        throw nb::value_error("embeddings must be [rows, hidden_size]");
}

nb::ndarray<nb::numpy, float, nb::ndim<2>> to_numpy(std::vector<float>&& values, size_t rows,
                                                    size_t width) {
    auto* owned = new std::vector<float>(std::move(values));
    nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
    return nb::ndarray<nb::numpy, float, nb::ndim<2>>(owned->data(), {rows, width}, owner);
}

}  // namespace

NB_MODULE(_native, m) {
    nb::exception<StepError>(m, "StepError", PyExc_RuntimeError);

    m.def(
        "isa_variants",
        [] {
            std::vector<std::string> names;
            for (const Kernels* k : usable_kernels()) names.emplace_back(k->name);
            return names;
        },
        "The ISA variants that this processor can run, the fastest first.");
    m.def(
        "golden",
        [](const std::string& isa) {
            std::vector<std::tuple<std::string, uint64_t, uint64_t>> found;
            for (const Golden& one : golden(find_kernels(isa)))
                found.emplace_back(one.what, one.digest, one.expected);
            return found;
        },
        "isa"_a, nb::call_guard<nb::gil_scoped_release>(),
        "What every kernel of a variant makes of fixed numbers: name, digest, and what it must "
        "be.");
    m.def(
        "numerics_version", [] { return kNumericsVersion; },
        "The version of the numerics that the kernels follow.");
    nb::class_<PlainRead>(m, "PlainRead")
        .def(nb::init<int, size_t, const std::vector<int>&>(), "threads"_a, "bytes"_a,
             "cpus"_a = std::vector<int>{}, nb::call_guard<nb::gil_scoped_release>())
        .def("bytes_per_s", &PlainRead::bytes_per_s, "threads"_a, "rounds"_a,
             nb::call_guard<nb::gil_scoped_release>(),
             "What so many of the threads read together, over several reads.");
    m.def(
        "matrix_bytes",
        [](const std::string& format, int outputs, int inputs, int unit) {
            Matrix matrix;
            matrix.format = format_of(format);
            matrix.layout = {inputs, unit};
            matrix.outputs = outputs;
            return matrix.bytes();
        },
        "format"_a, "outputs"_a, "inputs"_a, "unit"_a, "Packed size of a matrix in bytes.");
    m.def(
        "kv_head_bytes",
        [](int dim, bool half) { return (kv_head_bytes(dim, half) + 63) / 64 * 64; }, "dim"_a,
        "half"_a, "Bytes of one KV head in one page.");
    m.def(
        "exp",
        [](Floats x, const std::string& isa) {
            std::vector<float> y(x.size());
            const FloatMode mode;
            find_kernels(isa).exp(x.data(), y.data(), y.size());
            const size_t n = y.size();
            return to_numpy(std::move(y), 1, n);
        },
        "x"_a, "isa"_a = "", "The engine's own exponential, [1, n] float32.");

    m.def(
        "checksum",
        [](nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu> data) {
            nb::gil_scoped_release released;
            return checksum(data.data(), data.size());
        },
        "data"_a, "64 bits that tell damaged bytes, at the speed of memory; not for secrets.");
    m.def("reduction_bytes", &reduction_bytes, "rows"_a, "width"_a, "nodes"_a,
          "Bytes of the messages that a node makes for one all_reduce_add at most.");
    m.def("shared_transport_bytes", &shared_transport_bytes,
          "Bytes of memory that two nodes of one host share.");

    nb::class_<Arena>(m, "Arena")
        .def(nb::init<size_t>(), "bytes"_a)
        .def_prop_ro("size", &Arena::size)
        .def_prop_ro("used", &Arena::used);

    nb::class_<PackedMatrix>(m, "Matrix")
        .def(nb::init<std::shared_ptr<Arena>, const std::string&, int, int, int>(), "arena"_a,
             "format"_a, "outputs"_a, "inputs"_a, "unit"_a)
        .def("pack", &PackedMatrix::pack, "first_output"_a, "values"_a,
             "Packs rows [n, inputs]; ValueError says what is wrong with the values.")
        .def(
            "clear",
            [](PackedMatrix& self) {
                nb::gil_scoped_release released;
                clear_panels(self.matrix.format, self.matrix.layout, self.matrix.num_panels(),
                             self.panels);
            },
            "Fills the padding; before the first rows are packed.")
        .def_prop_ro("nbytes", [](const PackedMatrix& self) { return self.matrix.bytes(); })
        .def_prop_ro(
            "panels",
            [](PackedMatrix& self) {
                return nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>(
                    self.panels, {self.matrix.bytes()}, nb::find(self));
            },
            "The packed bytes.");

    m.def(
        "place",
        [](const std::vector<std::shared_ptr<PackedMatrix>>& matrices,
           const std::vector<int>& cpus) {
            std::vector<Matrix> plain;
            for (const auto& matrix : matrices) plain.push_back(matrix->matrix);
            nb::gil_scoped_release released;
            place_panels(plain, cpus);
        },
        "matrices"_a, "cpus"_a,
        "Puts the pages of matrices that are still empty where these processors' threads read.");

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

    nb::class_<Exchange>(m, "Exchange")
        .def(nb::init<int, std::vector<std::string>, uint32_t, double, bool>(), "node"_a, "names"_a,
             "generation"_a, "stall_seconds"_a, "spin"_a)
        .def(
            "add_tcp",
            [](Exchange& self, int peer, int descriptor) {
                self.add_link(peer, tcp_transport(descriptor, self.spin()));
            },
            "peer"_a, "descriptor"_a, "Takes over a connected stream socket.")
        .def(
            "add_emulated",
            [](Exchange& self, int peer, int descriptor, double latency, double bytes_per_s) {
                if (!(latency >= 0 && bytes_per_s > 0))
                    throw nb::value_error("a link has a latency of at least 0 and a rate above 0");
                self.add_link(peer, emulated_transport(tcp_transport(descriptor, self.spin()),
                                                       latency, bytes_per_s));
            },
            "peer"_a, "descriptor"_a, "latency"_a, "bytes_per_s"_a,
            "Takes over a connected stream socket between processes of one host; what it carries "
            "arrives as if over a link of that latency (seconds, one way) and rate.")
        .def(
            "add_shared",
            [](Exchange& self, int peer, int descriptor, int memory, bool first) {
                self.add_link(peer, shared_transport(descriptor, memory, first));
            },
            "peer"_a, "descriptor"_a, "memory"_a, "first"_a,
            "Takes over a stream socket and a descriptor of memory that both ends have.")
        .def("abort", &Exchange::abort, "reason"_a, nb::call_guard<nb::gil_scoped_release>())
        .def("leave", &Exchange::leave, nb::call_guard<nb::gil_scoped_release>());
    m.def(
        "join_locally",
        [](Exchange& a, Exchange& b) {
            auto [left, right] = local_transport();
            a.add_link(b.node(), std::move(left));
            b.add_link(a.node(), std::move(right));
        },
        "a"_a, "b"_a, "Links two nodes of one process.");

    nb::class_<PyExecutor>(m, "Executor")
        .def(
            "__init__",
            [](PyExecutor* self, const ProgramBuilder& program, int max_rows, int num_pages,
               int max_pages, bool half_kv, int threads, std::vector<int> cpus, bool spin,
               const std::string& isa, const std::string& wire, size_t hop_bytes, int overlap_rows,
               int64_t fetch_ahead, std::shared_ptr<Exchange> exchange, const PyExecutor* team_of) {
                ExecutorOptions options;
                options.max_rows = max_rows;
                options.num_pages = num_pages;
                options.max_slots_pages = max_pages;
                options.half_kv = half_kv;
                options.threads = threads;
                options.cpus = std::move(cpus);
                options.spin = spin;
                options.kernels = &find_kernels(isa);
                options.wire = wire_format_of(wire);
                options.hop_bytes = hop_bytes;
                options.overlap_rows = overlap_rows;
                options.fetch_ahead = fetch_ahead;
                // First what can fail: nothing destroys an object whose __init__ has thrown.
                auto executor =
                    std::make_unique<Executor>(program.program, options, exchange,
                                               team_of ? team_of->executor->team() : nullptr);
                new (self) PyExecutor{program.matrices, std::move(exchange), std::move(executor)};
            },
            "program"_a, "max_rows"_a, "num_pages"_a, "max_pages"_a, "half_kv"_a, "threads"_a,
            "cpus"_a, "spin"_a, "isa"_a, "wire"_a, "hop_bytes"_a, "overlap_rows"_a, "fetch_ahead"_a,
            "exchange"_a.none(), "team_of"_a.none() = nb::none())
        .def(
            "run",
            [](PyExecutor& self, Ints tokens, Ints slots, Ints positions, Ints wants, Ints tables,
               Floats embeddings, bool prefill) {
                Executor& executor = *self.executor;
                StepRows step = rows_of(tokens, slots, positions, wants, tables);
                step.prefill = prefill;
                check_embeddings(executor, tokens, embeddings);
                const auto width = static_cast<size_t>(executor.program().vocab_size);
                std::vector<float> logits;
                {
                    nb::gil_scoped_release released;
                    executor.run(step, embeddings.data());
                    logits.resize(width * static_cast<size_t>(executor.logit_rows()));
                    for (int r = 0; r < executor.logit_rows(); r++)
                        std::copy_n(
                            executor.logits() + static_cast<size_t>(r) * executor.logits_stride(),
                            width, logits.data() + static_cast<size_t>(r) * width);
                }
                return to_numpy(std::move(logits), static_cast<size_t>(executor.logit_rows()),
                                width);
            },
            "tokens"_a, "slots"_a, "positions"_a, "wants"_a, "tables"_a, "embeddings"_a,
            "prefill"_a = false)
        .def(
            "best",
            [](PyExecutor& self, Ints tokens, Ints slots, Ints positions, Ints wants, Ints tables,
               Floats embeddings, bool prefill) {
                Executor& executor = *self.executor;
                StepRows step = rows_of(tokens, slots, positions, wants, tables);
                step.prefill = prefill;
                step.best_only = true;
                check_embeddings(executor, tokens, embeddings);
                nb::gil_scoped_release released;
                executor.run(step, embeddings.data());
                return executor.logit_rows() ? executor.best() : std::vector<int32_t>{};
            },
            "tokens"_a, "slots"_a, "positions"_a, "wants"_a, "tables"_a, "embeddings"_a,
            "prefill"_a = false, "Like run, but returns each wanting row's best token.")
        .def_prop_ro("progress", [](PyExecutor& self) { return self.executor->progress(); })
        .def(
            "follow",
            [](PyExecutor& self, int wake_descriptor) {
                nb::gil_scoped_release released;
                return self.executor->follow(wake_descriptor);
            },
            "wake_descriptor"_a = -1,
            "1 after a step, 0 when node 0 has left, 2 when the descriptor is readable.")
        .def_prop_ro("work_bytes", [](PyExecutor& self) { return self.executor->work_bytes(); })
        .def_prop_ro(
            "fetch_ahead", [](PyExecutor& self) { return self.executor->fetch_ahead(); },
            "Bytes of weights that products fetch ahead of what they read.")
        .def(
            "bill",
            [](PyExecutor& self, bool decode) {
                const Bill& b = self.executor->bill(decode);
                nb::dict d;
                d["weights"] = b.weights;
                d["attention"] = b.attention;
                d["exchange_wait"] = b.exchange_wait;
                d["wire"] = b.wire;
                d["other"] = b.other;
                d["wall"] = b.wall;
                d["steps"] = b.steps;
                d["rows"] = b.rows;
                d["weight_bytes"] = b.weight_bytes;
                const char* const kinds[kTraffics] = {"activation_bytes", "logit_bytes",
                                                      "control_bytes", "weight_wire_bytes",
                                                      "kv_wire_bytes"};
                for (size_t i = 0; i < kTraffics; i++) d[kinds[i]] = b.wire_bytes[i];
                d["exchanges"] = b.exchanges;
                d["barriers"] = b.barriers;
                return d;
            },
            "decode"_a, "Seconds by item since the start, as thread 0 saw them, and counts.");
}
