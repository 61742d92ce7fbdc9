// Which operations of a program need no barrier of the team between them. Knows how each
// kind of operation is cut between members (ops.cpp); runs nothing.
#pragma once
#include <vector>

#include "executor/program.h"

namespace bw {

struct Fusion {
    // By operation: whether a barrier follows it. Operations that are cut by heads alike
    // need none between them: each member goes on with the heads that it has just written.
    std::vector<bool> barriers;
    // By operation: the norm that a product does on its own input while it quantises it, as an
    // index, or -1. That norm itself is then left out.
    std::vector<int> norm_of;
    std::vector<bool> left_out;
};

Fusion fuse(const Program& program);
// Elements of the widest row that a product makes by a norm of its own; 0 where none does.
int widest_norm(const Program& program, const Fusion& fusion);

}  // namespace bw
