// Programs as the lowering makes them, and wilder: sizes of all kinds, norms wider than the model,
// views in the midst of buffers, every format.
#pragma once
#include "executor/executor.h"
#include "fuzz/random.h"
#include "fuzz/weights.h"

namespace bw::fuzz {

struct MadeProgram {
    Program program;
    ExecutorOptions options;  // but for the kernels
    Weights weights;
};

// A program of one node that must run.
MadeProgram make_program(Random& random);
// Changes something of it, so that it may be nonsense.
void spoil(Random& random, MadeProgram& made);

}  // namespace bw::fuzz
