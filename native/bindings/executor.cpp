// The executor: steps from arrays, logits to arrays, the bill.
#include "executor/executor.h"

#include <algorithm>
#include <climits>
#include <optional>

#include "bindings/bindings.h"
#include "exchange/exchange.h"
#include "kernels/isa.h"

namespace bw {

namespace {

WireFormat wire_format_of(const std::string& name) {
    if (name == "exact") return WireFormat::exact;
    if (name == "bf16") return WireFormat::bf16;
    if (name == "q8") return WireFormat::q8;
    throw nb::value_error("wire formats are exact, bf16 and q8");
}

struct PyExecutor {
    std::vector<std::shared_ptr<PackedMatrix>> matrices;
    std::shared_ptr<Exchange> exchange;
    std::unique_ptr<Executor> executor;
    std::vector<Ints> open;  // the arrays of a step that was opened
};

// What does not fit an int is more than any step may have, and is refused as such.
int whole(size_t size) { return static_cast<int>(std::min<size_t>(size, INT_MAX)); }

// The rows of a step, as the arrays have them.
StepRows rows_of(const Ints& tokens, const Ints& slots, const Ints& positions, const Ints& wants,
                 const Ints& tables, bool prefill, const std::optional<Ints>& sources,
                 const std::optional<Ints>& states) {
    const size_t rows = tokens.size();
    if (slots.size() != rows || positions.size() != rows || wants.size() != rows ||
        tables.ndim() != 2 || (sources && sources->size() != rows))
        throw nb::value_error("a step's arrays must have one entry a row");
    if (states && (states->ndim() != 2 || states->shape(0) != tables.shape(0) ||
                   states->shape(1) != kStateNumbers))
        throw nb::value_error("a step's states must be five numbers for each sequence");
    StepRows step;
    step.rows = whole(rows);
    step.slots = whole(tables.shape(0));
    step.pages = whole(tables.shape(1));
    step.tokens = tokens.data();
    step.slot_of = slots.data();
    step.positions = positions.data();
    step.wants = wants.data();
    step.tables = tables.data();
    step.states = states ? states->data() : nullptr;
    step.prefill = prefill;
    if (sources) step.sources = sources->data();
    return step;
}

StepRows step_of(const Executor& executor, const Ints& tokens, const Ints& slots,
                 const Ints& positions, const Ints& wants, const Ints& tables,
                 const Floats& embeddings, bool prefill, const std::optional<Ints>& sources,
                 const std::optional<Ints>& states) {
    const StepRows step =
        rows_of(tokens, slots, positions, wants, tables, prefill, sources, states);
    if (embeddings.ndim() != 2 || embeddings.shape(0) != tokens.size() ||
        embeddings.shape(1) != static_cast<size_t>(executor.program().hidden_size))
        throw nb::value_error("embeddings must be [rows, hidden_size]");
    return step;
}

// The logits of the step that was run or finished last.
std::vector<float> logits_of(const Executor& executor) {
    const auto width = static_cast<size_t>(executor.program().vocab_size);
    std::vector<float> logits(width * static_cast<size_t>(executor.logit_rows()));
    for (int r = 0; r < executor.logit_rows(); r++)
        std::copy_n(executor.logits() + static_cast<size_t>(r) * executor.logits_stride(), width,
                    logits.data() + static_cast<size_t>(r) * width);
    return logits;
}

std::vector<int32_t> best_of(const Executor& executor) {
    return executor.logit_rows() ? executor.best() : std::vector<int32_t>{};
}

void check_buffer(const PyExecutor& self, size_t index, bool grid) {
    const auto& buffers = self.executor->program().buffers;
    if (index >= buffers.size() || buffers[index].grid != grid)
        throw nb::value_error("a buffer does not exist, or holds another kind of number");
}

// A buffer of an executor, which lives as long as the array.
template <typename T>
nb::ndarray<nb::numpy, T, nb::ndim<2>> view_of(PyExecutor& self, size_t index, T* data) {
    const auto rows = static_cast<size_t>(self.executor->max_rows());
    return {data, {rows, self.executor->buffer_stride(index)}, nb::find(self)};
}

}  // namespace

void bind_executor(nb::module_& m) {
    m.attr("STATE_NUMBERS") = kStateNumbers;
    nb::class_<PyExecutor>(m, "Executor")
        .def(
            "__init__",
            [](PyExecutor* self, const PyProgram& program, int max_rows, int num_pages,
               int max_pages, bool half_kv, int threads, std::vector<int> cpus, bool spin,
               const std::string& isa, const std::string& wire, size_t hop_bytes, int overlap_rows,
               int64_t fetch_ahead, std::shared_ptr<Exchange> exchange, const PyExecutor* team_of,
               bool flush_to_zero, int num_states, int max_drafted) {
                ExecutorOptions options;
                options.max_rows = max_rows;
                options.num_pages = num_pages;
                options.max_slots_pages = max_pages;
                options.half_kv = half_kv;
                options.num_states = num_states;
                options.max_drafted = max_drafted;
                options.threads = threads;
                options.cpus = std::move(cpus);
                options.spin = spin;
                options.kernels = &find_kernels(isa);
                options.wire = wire_format_of(wire);
                options.hop_bytes = hop_bytes;
                options.overlap_rows = overlap_rows;
                options.fetch_ahead = fetch_ahead;
                options.subnormals = flush_to_zero ? Subnormals::flushed : Subnormals::kept;
                // First what can fail: nothing destroys an object whose __init__ has thrown.
                auto executor =
                    std::make_unique<Executor>(program.program, options, exchange,
                                               team_of ? team_of->executor->team() : nullptr);
                new (self)
                    PyExecutor{program.matrices, std::move(exchange), std::move(executor), {}};
            },
            "program"_a, "max_rows"_a, "num_pages"_a, "max_pages"_a, "half_kv"_a, "threads"_a,
            "cpus"_a, "spin"_a, "isa"_a, "wire"_a, "hop_bytes"_a, "overlap_rows"_a, "fetch_ahead"_a,
            "exchange"_a.none(), "team_of"_a.none() = nb::none(), "flush_to_zero"_a = false,
            "num_states"_a = 0, "max_drafted"_a = 0)
        .def(
            "run",
            [](PyExecutor& self, Ints tokens, Ints slots, Ints positions, Ints wants, Ints tables,
               Floats embeddings, bool prefill, std::optional<Ints> sources,
               std::optional<Ints> states) {
                Executor& executor = *self.executor;
                const StepRows step = step_of(executor, tokens, slots, positions, wants, tables,
                                              embeddings, prefill, sources, states);
                const auto width = static_cast<size_t>(executor.program().vocab_size);
                std::vector<float> logits;
                {
                    nb::gil_scoped_release released;
                    executor.run(step, embeddings.data());
                    logits = logits_of(executor);
                }
                return to_numpy(std::move(logits), static_cast<size_t>(executor.logit_rows()),
                                width);
            },
            "tokens"_a, "slots"_a, "positions"_a, "wants"_a, "tables"_a, "embeddings"_a,
            "prefill"_a = false, "sources"_a.none() = nb::none(), "states"_a.none() = nb::none())
        .def(
            "best",
            [](PyExecutor& self, Ints tokens, Ints slots, Ints positions, Ints wants, Ints tables,
               Floats embeddings, bool prefill, std::optional<Ints> sources,
               std::optional<Ints> states) {
                Executor& executor = *self.executor;
                StepRows step = step_of(executor, tokens, slots, positions, wants, tables,
                                        embeddings, prefill, sources, states);
                step.best_only = true;
                nb::gil_scoped_release released;
                executor.run(step, embeddings.data());
                return best_of(executor);
            },
            "tokens"_a, "slots"_a, "positions"_a, "wants"_a, "tables"_a, "embeddings"_a,
            "prefill"_a = false, "sources"_a.none() = nb::none(), "states"_a.none() = nb::none(),
            "Like run, but returns each wanting row's best token.")
        .def_prop_ro(
            "staged", [](PyExecutor& self) { return self.executor->staged(); },
            "Whether steps can be started before earlier ones are finished.")
        .def_prop_ro(
            "under_way", [](PyExecutor& self) { return self.executor->under_way(); },
            "Steps that were started and are not finished.")
        .def(
            "start",
            [](PyExecutor& self, Ints tokens, Ints slots, Ints positions, Ints wants, Ints tables,
               Floats embeddings, bool prefill, std::optional<Ints> states, bool best_only) {
                Executor& executor = *self.executor;
                StepRows step = step_of(executor, tokens, slots, positions, wants, tables,
                                        embeddings, prefill, std::nullopt, states);
                step.best_only = best_only;
                nb::gil_scoped_release released;
                executor.start(step, embeddings.data());
            },
            "tokens"_a, "slots"_a, "positions"_a, "wants"_a, "tables"_a, "embeddings"_a,
            "prefill"_a, "states"_a.none(), "best_only"_a,
            "Runs a step up to where logits come back from the last stage; see finish.")
        .def(
            "finish",
            [](PyExecutor& self) -> nb::object {
                Executor& executor = *self.executor;
                std::vector<float> logits;
                {
                    nb::gil_scoped_release released;
                    executor.finish();
                    if (!executor.best_only()) logits = logits_of(executor);
                }
                if (executor.best_only()) return nb::cast(best_of(executor));
                return nb::cast(to_numpy(std::move(logits),
                                         static_cast<size_t>(executor.logit_rows()),
                                         static_cast<size_t>(executor.program().vocab_size)));
            },
            "Of the step that was started first and is not finished: what run or best gives.")
        .def(
            "open",
            [](PyExecutor& self, Ints tokens, Ints slots, Ints positions, Ints wants, Ints tables,
               bool prefill, std::optional<Ints> sources, std::optional<Ints> states) {
                const StepRows step =
                    rows_of(tokens, slots, positions, wants, tables, prefill, sources, states);
                self.open = {tokens, slots, positions, wants, tables};  // kept for the step
                if (sources) self.open.push_back(*sources);
                if (states) self.open.push_back(*states);
                nb::gil_scoped_release released;
                self.executor->open(step);
            },
            "tokens"_a, "slots"_a, "positions"_a, "wants"_a, "tables"_a, "prefill"_a,
            "sources"_a.none() = nb::none(), "states"_a.none() = nb::none(),
            "Node 0: opens a step whose operations will be performed one by one.")
        .def(
            "join",
            [](PyExecutor& self, int wake_descriptor) {
                nb::gil_scoped_release released;
                double start = 0;
                return self.executor->join(wake_descriptor, &start);
            },
            "wake_descriptor"_a = -1, "Other nodes: as follow, but performs nothing.")
        .def(
            "step",
            [](PyExecutor& self) {
                const StepRows& step = self.executor->step();
                const auto rows = static_cast<size_t>(step.rows);
                const auto table =
                    static_cast<size_t>(step.slots) * static_cast<size_t>(step.pages);
                const size_t states = static_cast<size_t>(step.slots) * kStateNumbers;
                auto list = [](const int32_t* values, size_t count) {
                    return std::vector<int32_t>(values, values + count);
                };
                return nb::make_tuple(list(step.tokens, rows), list(step.slot_of, rows),
                                      list(step.positions, rows), list(step.wants, rows),
                                      list(step.tables, table), step.pages, step.prefill,
                                      list(step.sources, step.sources ? rows : 0),
                                      list(step.states, step.states ? states : 0));
            },
            "The arrays of the step at hand, flat; the pages of a table; whether it is of a "
            "prompt; the rows that are read, of a step that drafts; its states, flat, none where "
            "it has none.")
        .def(
            "perform",
            [](PyExecutor& self, size_t index, std::optional<Floats> embeddings) {
                const Executor& executor = *self.executor;
                const size_t hidden = static_cast<size_t>(executor.program().hidden_size);
                if (embeddings &&
                    embeddings->size() != hidden * static_cast<size_t>(executor.step().rows))
                    throw nb::value_error("embeddings must be [rows, hidden_size]");
                const float* rows = embeddings ? embeddings->data() : nullptr;
                nb::gil_scoped_release released;
                self.executor->perform(index, rows);
            },
            "index"_a, "embeddings"_a.none() = nb::none(), "One operation of the step at hand.")
        .def(
            "floats",
            [](PyExecutor& self, size_t index) {
                check_buffer(self, index, false);
                return view_of(self, index, self.executor->floats(index));
            },
            "buffer"_a, "A buffer's numbers, [rows, padded width], which may be written.")
        .def(
            "grid",
            [](PyExecutor& self, size_t index) {
                check_buffer(self, index, true);
                return view_of(self, index, self.executor->grid(index));
            },
            "buffer"_a, "A buffer's sums.")
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
                d["sealing"] = b.sealing;
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

}  // namespace bw
