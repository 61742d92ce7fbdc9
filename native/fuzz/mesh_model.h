// A small model for a mesh, cut over its nodes or in stages: all kinds of messages, and hardly any
// arithmetic.
#pragma once
#include <vector>

#include "executor/executor.h"
#include "fuzz/random.h"
#include "fuzz/weights.h"

namespace bw::fuzz {

class MeshModel {
  public:
    explicit MeshModel(Random& random);

    // The whole model, for a node that is alone.
    Program whole(Weights& weights) const { return write(0, 1, weights); }
    // A node's part of it.
    Program part(int node, Weights& weights) const { return write(node, nodes, weights); }

    int nodes;
    bool in_stages;
    int hidden_size, vocab_size;

  private:
    struct Range {
        int from, to;
        int size() const { return to - from; }
    };
    struct Dense {
        int outputs, inputs;
        std::vector<float> values;  // [outputs, inputs]
    };
    struct Layer {
        Dense up, down;  // hidden to columns, and back
    };

    Range columns_of(int node, int num_nodes) const;
    Range vocabulary_of(int node, int num_nodes) const;
    Range layers_of(int node, int num_nodes) const;
    Program write(int node, int num_nodes, Weights& weights) const;

    std::vector<int> ends_;  // of the nodes' columns
    std::vector<Layer> layers_;
    Dense head_;

    friend class MeshWriter;
};

}  // namespace bw::fuzz
