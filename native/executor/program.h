// Program: the flat list of operations of one node, as the Python side lowers it
// (programs/program.py describes the kinds). Plain data.
#pragma once
#include <array>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace bw {

enum class OpKind : int {
    embed,
    recv,
    send,
    rms_norm,
    linear,
    rope,
    kv_append,
    attention,
    silu_mul,
    linear_grid,
    all_reduce_add,
    take_rows,
    gather_logits,
};

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

struct Op {
    OpKind kind = OpKind::embed;
    std::string name;
    View a, b, out;  // inputs and output
    int matrix = -1, vector = -1;
    int groups = 0, dim = 0, heads = 0, cache = 0, kv_heads = 0, window = 0;
    float eps = 0;
    uint32_t tag = 0;  // of an exchange: the same number on every node
    std::vector<int> kv_map;
    std::vector<int> nodes;         // embed and all_reduce_add: the group; recv, send: the peers
    std::vector<int> contributors;  // all_reduce_add
    std::vector<std::array<int, 3>> owners;  // gather_logits: node, start, stop
};

struct CacheShape {
    int layers = 0, kv_heads = 0, dim = 0;
};

struct Program {
    int node = 0, num_nodes = 1, hidden_size = 0, vocab_size = 0;
    CacheShape cache;
    std::vector<double> inv_freq;
    std::vector<Buffer> buffers;
    std::vector<Matrix> matrices;
    std::vector<std::vector<float>> vectors;  // padded to 16 with zeros by the executor
    std::vector<Op> ops;
};

// All of `nodes` but one.
inline std::vector<int> without(const std::vector<int>& nodes, int node) {
    std::vector<int> others;
    for (int other : nodes)
        if (other != node) others.push_back(other);
    return others;
}

}  // namespace bw
