#include "executor/check.h"

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
    require(program.caches.size() <= kMostLayers, "it has too many KV caches");
    for (const CacheShape& cache : program.caches) {
        // A node may have no heads.
        require(within(cache.kv_heads, 0, kMostKvHeads) && within(cache.k_dim, 1, kMostHeadDim) &&
                    within(cache.v_dim, 1, kMostHeadDim),
                "the shape of a KV cache is out of range");
        if (cache.latent)
            require(cache.kv_heads <= 1 && cache.v_dim <= cache.k_dim,
                    "a latent KV cache has other heads or values than its keys have");
        else
            require(cache.k_dim == cache.v_dim,
                    "its keys and values have other widths, which these kernels do not read");
    }
    require(program.states.size() <= 2 * kMostLayers, "it has too many states");
    for (const StateShape& state : program.states)
        require(within(state.heads, 0, kMostKvHeads) && within(state.k_dim, 0, kMostStateDim) &&
                    within(state.v_dim, 0, kMostStateDim) && within(state.row, 1, kMostSize) &&
                    within(state.history, 0, kMostTaps),
                "the shape of a state is out of range");
    require(program.frequencies.size() <= kMostTables, "it has too many tables of frequencies");
    for (const auto& table : program.frequencies) {
        require(table.values.size() <= kMostHeadDim, "it has too many frequencies");
        require(0.0 < table.factor && table.factor <= kMostRopeFactor,
                "the factor of its cosines and sines is out of range");
        for (double frequency : table.values)
            require(std::fabs(frequency) <= kMostFrequency, "a frequency is out of range");
    }
    for (const Buffer& buffer : program.buffers)
        require(within(buffer.width, 1, kMostSize), "a buffer's width is out of range");
    for (const Matrix& matrix : program.matrices)
        require(within(matrix.layout.k, 1, kMostSize) && within(matrix.layout.unit, 1, kMostSize) &&
                    within(matrix.outputs, 1, kMostSize),
                "the shape of a matrix is out of range");
    for (const Vector& vector : program.vectors)
        require(within(vector.size, 1, kMostSize), "the size of a vector is out of range");
    require(program.ops.size() <= kMostOps, "it has too many operations");
    require(within(program.drafts_from, -1, static_cast<int>(program.ops.size())),
            "its pass that drafts begins beyond its operations");
    for (const Op& op : program.ops) {
        require(within(static_cast<int>(op.kind), 0, kKinds - 1), "an operation's kind is unknown");
        check_operation(program, op, max_rows);
    }
}

void check_weights(const Program& program) {
    for (const Matrix& matrix : program.matrices) {
        require(within(static_cast<int>(matrix.format), 0, kFormats - 1),
                "a matrix's format is unknown");
        const int whole = whole_columns(matrix.format);
        require(matrix.layout.k % whole == 0 && matrix.layout.unit % whole == 0,
                "a matrix's units cut the blocks that its format keeps");
        require(matrix.panels != nullptr, "a matrix is missing");
    }
    for (const Op& op : program.ops) {
        const Matrix* first = nullptr;
        for (int index : op.matrices) {
            if (index < 0) continue;
            const Matrix& matrix = program.matrices[static_cast<size_t>(index)];
            if (!first) first = &matrix;
            const bool experts = op.kind == OpKind::expert_linear || op.kind == OpKind::expert_grid;
            require(matrix.format == first->format || experts,
                    "an operation's matrices have other formats");
        }
    }
    for (const Vector& vector : program.vectors)
        require(vector.values.size() == static_cast<size_t>(vector.size), "a vector is missing");
}

void check_options(const ExecutorOptions& options) {
    require(within(options.max_rows, 1, kMostRows), "rows of a step must be 1 to 1048576");
    require(
        within(options.num_pages, 0, kMostPages) && within(options.max_slots_pages, 0, kMostPages),
        "KV pages must be 0 to 16777216");
    require(within(options.num_states, 0, kMostPages), "states must be 0 to 16777216");
    require(within(options.max_drafted, 0, kMostRows), "drafted rows must be 0 to 1048576");
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
