#include "executor/decode.h"

#include <stdexcept>
#include <string>

#include "core/cursor.h"
#include "executor/check.h"

namespace bw {

namespace {

constexpr size_t kLongestName = 200;
constexpr size_t kLeastOp = 8;  // bytes: its kind, the length of its name

// Reads each attribute as its type is held.
struct TakeAttribute {
    Cursor& in;

    void operator()(const char*, AttributeType, int& value) const { value = in.take<int32_t>(); }
    void operator()(const char*, AttributeType, uint32_t& value) const {
        value = in.take<uint32_t>();
    }
    void operator()(const char*, AttributeType, float& value) const { value = in.take<float>(); }
    void operator()(const char*, AttributeType, std::vector<int>& values) const {
        values = in.ints();
    }
    void operator()(const char*, AttributeType, std::vector<std::array<int, 3>>& values) const {
        values.resize(in.count(3 * sizeof(int32_t)));
        for (auto& triple : values)
            for (int& value : triple) value = in.take<int32_t>();
    }
};

View take_view(Cursor& in) {
    View view;
    view.buffer = in.take<int32_t>();
    view.offset = in.take<int32_t>();
    view.width = in.take<int32_t>();
    return view;
}

void take_operands(Cursor& in, Op& op) {
    const OperationInfo& info = op.info();
    View* const views[kViews] = {&op.a, &op.b, &op.out};
    for (int i = 0; i < kViews; i++)
        if (info.operands[i].rows != Rows::none) *views[i] = take_view(in);
    if (info.matrix) op.matrix = in.take<int32_t>();
    if (info.vector.read) op.vector = in.take<int32_t>();
    visit_attributes(op.kind, static_cast<Attributes&>(op), TakeAttribute{in});
}

Op take_op(Cursor& in, size_t index) {
    Op op;
    const auto kind = in.take<int32_t>();
    op.name = in.text(kLongestName);
    const std::string who = "operation " + (op.name.empty() ? std::to_string(index) : op.name);
    if (kind < 0 || kind >= kKinds)
        throw std::invalid_argument(who + " is of kind " + std::to_string(kind) +
                                    ", which is none of " + std::to_string(kKinds));
    op.kind = static_cast<OpKind>(kind);
    try {
        take_operands(in, op);
    } catch (const std::invalid_argument&) {
        throw std::invalid_argument("the program ends in the midst of " + who + ", of kind " +
                                    op.info().name);
    }
    return op;
}

void take_shapes(Cursor& in, Program& program) {
    program.caches.resize(in.count(16));
    for (CacheShape& cache : program.caches) {
        cache.kv_heads = in.take<int32_t>();
        cache.k_dim = in.take<int32_t>();
        cache.v_dim = in.take<int32_t>();
        cache.latent = in.flag();
    }
    program.states.resize(in.count(20));
    for (StateShape& state : program.states)
        for (int* value : {&state.heads, &state.k_dim, &state.v_dim, &state.row, &state.history})
            *value = in.take<int32_t>();
    program.frequencies.resize(in.count(12));
    for (auto& table : program.frequencies) {
        table.values.resize(in.count(sizeof(double)));
        for (double& frequency : table.values) frequency = in.take<double>();
        table.factor = in.take<double>();
    }
    program.buffers.resize(in.count(12));
    for (Buffer& buffer : program.buffers) {
        buffer.width = in.take<int32_t>();
        buffer.grid = in.flag();
        buffer.logit_rows = in.flag();
    }
    program.matrices.resize(in.count(12));
    for (Matrix& matrix : program.matrices) {
        matrix.layout.k = in.take<int32_t>();
        matrix.layout.unit = in.take<int32_t>();
        matrix.outputs = in.take<int32_t>();
    }
    program.vectors.resize(in.count(4));
    for (Vector& vector : program.vectors) vector.size = in.take<int32_t>();
}

}  // namespace

Program decode_program(const uint8_t* data, size_t size) {
    Cursor in(data, size, "the program");
    if (in.take<uint32_t>() != kOperationsDigest)
        throw std::invalid_argument(
            "the program was made with another table of operations than this core was built with; "
            "build and install both from the same sources");
    Program program;
    program.node = in.take<int32_t>();
    program.num_nodes = in.take<int32_t>();
    program.hidden_size = in.take<int32_t>();
    program.vocab_size = in.take<int32_t>();
    program.drafts_from = in.take<int32_t>();
    take_shapes(in, program);
    const size_t count = in.count(kLeastOp);
    if (count > kMostOps)
        throw std::invalid_argument("this program cannot be run: it has too many operations");
    program.ops.reserve(count);
    for (size_t i = 0; i < count; i++) program.ops.push_back(take_op(in, i));
    in.expect_end();
    check_program(program, 1);
    return program;
}

}  // namespace bw
