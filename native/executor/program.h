// Program: the flat list of operations of one node, as the Python side lowers it
// (programs/operations.py is the table of their kinds). Plain data.
#pragma once
#include <array>
#include <string>
#include <vector>

#include "executor/operation.h"
#include "kernels/kernels.h"

namespace bw {

struct Buffer {
    int width = 0;
    bool grid = false;        // int64, else float
    bool logit_rows = false;  // rows that ask for logits, else the step's rows
};

struct View {
    int buffer = -1;
    int offset = 0;
    int width = 0;
};

// A packed matrix: panels of 16 outputs, see formats/packing.py. The bytes belong to an arena.
struct Matrix {
    Format format = Format::f32;
    Layout layout;
    int outputs = 0;
    const uint8_t* panels = nullptr;

    int num_panels() const { return outputs / kPanel + (outputs % kPanel != 0); }
    size_t bytes() const { return panel_bytes(format, layout) * static_cast<size_t>(num_panels()); }
};

// A float32 vector; the executor pads its values with zeros, to 16 and by 16 more.
struct Vector {
    int size = 0;
    std::vector<float> values;
};

struct Op : Attributes {
    OpKind kind = OpKind::embed;
    std::string name;
    View a, b, out;  // inputs and output
    int matrix = -1, vector = -1;

    const OperationInfo& info() const { return kOperations[static_cast<size_t>(kind)]; }
    const View& view(int index) const { return index == 0 ? a : index == 1 ? b : out; }
};

// The KV cache of a layer: heads of keys and values. A latent one has one head, whose values are
// the first elements of its keys.
struct CacheShape {
    int kv_heads = 0, k_dim = 0, v_dim = 0;
    bool latent = false;
};

// What a layer remembers of a sequence: a matrix [k_dim, v_dim] for each head, and `row` numbers of
// each of the last rows, `history` of them and those that may be wrong.
struct StateShape {
    int heads = 0, k_dim = 0, v_dim = 0, row = 0, history = 0;
};

// What ropes turn by: radians a position, and what multiplies cosines and sines.
struct Frequencies {
    std::vector<double> values;
    double factor = 1.0;
};

struct Program {
    int node = 0, num_nodes = 1, hidden_size = 0, vocab_size = 0;
    int drafts_from = -1;  // the first operation of the pass that drafts, -1 where there is none
    std::vector<CacheShape> caches;
    std::vector<StateShape> states;
    std::vector<Frequencies> frequencies;
    std::vector<Buffer> buffers;
    std::vector<Matrix> matrices;
    std::vector<Vector> vectors;
    std::vector<Op> ops;

    size_t main_ops() const {
        return drafts_from < 0 ? ops.size() : static_cast<size_t>(drafts_from);
    }
};

// All of `nodes` but one.
inline std::vector<int> without(const std::vector<int>& nodes, int node) {
    std::vector<int> others;
    for (int other : nodes)
        if (other != node) others.push_back(other);
    return others;
}

}  // namespace bw
