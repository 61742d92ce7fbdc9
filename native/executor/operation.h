// The table of operations, as C++ has it: kinds, operands, attributes and how work on them is
// shared. The table itself is src/bandweave/programs/operations.py; the build makes its header.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

namespace bw {

struct Attributes;
enum class OpKind : int;

// See the module above for what each of these says.
enum class AttributeType {
    count,
    real,
    tag,
    cache,
    state,
    frequencies,
    indices,
    matrices,
    nodes,
    owners
};
enum class Rows { none, step, logits, same };
enum class Shared { one, rows, pieces, lanes, panels, keys, states };
enum class Item { weights, attention, exchange, other };

// What a number of an operation is taken from: an attribute, the model's width, or a view.
struct Factor {
    int Attributes::* attribute = nullptr;
    bool hidden_size = false;
    int view = -1;

    constexpr bool given() const { return attribute != nullptr || hidden_size || view >= 0; }
};

struct OperandInfo {
    Rows rows = Rows::none;  // none: the operation has no such operand
    bool grid = false;
    bool optional = false;
    Factor width[2] = {};
};

struct VectorInfo {
    bool read = false;
    bool optional = false;
    Factor size = {};
};

constexpr int kViews = 3;  // two inputs and the output

struct OperationInfo {
    const char* name;
    OperandInfo operands[kViews];
    bool matrix;
    VectorInfo vector;
    Shared shared;
    int Attributes::* pieces;  // where it is shared by pieces
    Item item;
};

}  // namespace bw

#include "operations_table.h"

namespace bw {

// Whether grids of several nodes meet in it.
constexpr bool sums_grids(OpKind kind) {
    return kind == OpKind::all_reduce_add || kind == OpKind::all_reduce ||
           kind == OpKind::all_reduce_bits;
}

}  // namespace bw
