#include "executor/fusion.h"

#include <algorithm>

namespace bw {

namespace {

constexpr size_t kMostOpen = 64;

struct Touched {
    View view;
    int heads;
    bool written;
};

bool overlap(const View& a, const View& b) {
    return a.buffer >= 0 && a.buffer == b.buffer && a.offset < b.offset + b.width &&
           b.offset < a.offset + a.width;
}

bool same(const View& a, const View& b) {
    return a.buffer == b.buffer && a.offset == b.offset && a.width == b.width;
}

// Into how many parts a row is cut, where members take whole heads of it; 0 for all else.
int heads_of(const Op& op) {
    const OperationInfo& info = op.info();
    if (info.shared != Shared::pieces) return 0;
    const int pieces = op.*info.pieces;
    return op.kind == OpKind::rms_norm && pieces == 1 ? 0 : pieces;
}

std::vector<Touched> touched(const Op& op) {
    const int heads = heads_of(op);
    std::vector<Touched> views{{op.a, heads, false}};
    if (op.b.buffer >= 0) views.push_back({op.b, heads, false});
    if (op.out.buffer >= 0) views.push_back({op.out, heads, true});
    return views;
}

bool clashes(const Touched& a, const Touched& b) {
    const bool alike = same(a.view, b.view) && a.heads == b.heads;
    return overlap(a.view, b.view) && (a.written || b.written) && !alike;
}

bool known(const std::vector<Touched>& views, const Touched& view) {
    return std::any_of(views.begin(), views.end(), [&](const Touched& other) {
        return same(other.view, view.view) && other.heads == view.heads &&
               other.written == view.written;
    });
}

std::vector<bool> barriers_of(const Program& program) {
    std::vector<bool> barriers(program.ops.size(), true);
    std::vector<Touched> open;  // since the last barrier
    for (size_t i = 0; i + 1 < program.ops.size(); i++) {
        const Op &op = program.ops[i], &next = program.ops[i + 1];
        if (heads_of(op) == 0 || heads_of(next) == 0 || i + 1 == program.main_ops()) {
            open.clear();
            continue;
        }
        for (const Touched& view : touched(op))
            if (!known(open, view)) open.push_back(view);
        // Many are no model's: to compare each with each would take long.
        bool barrier = open.size() > kMostOpen;
        for (const Touched& want : touched(next))
            barrier |= std::any_of(open.begin(), open.end(),
                                   [&](const Touched& have) { return clashes(want, have); });
        barriers[i] = barrier;
        if (barrier) open.clear();
    }
    return barriers;
}

bool quantised(const Program& program, const Op& op) {
    return is_quantised(program.matrices[static_cast<size_t>(op.matrix)].format);
}

// The norm at `index` and a product of the whole of its output right after it.
bool feeds_next(const Program& program, size_t index) {
    if (index + 1 >= program.ops.size() || index + 1 == program.main_ops()) return false;
    const Op &norm = program.ops[index], &next = program.ops[index + 1];
    return norm.kind == OpKind::rms_norm && norm.groups == 1 && next.kind == OpKind::linear &&
           same(norm.out, next.a) && !overlap(norm.a, norm.out) && quantised(program, next);
}

}  // namespace

Fusion fuse(const Program& program) {
    const size_t count = program.ops.size();
    Fusion fusion{barriers_of(program), std::vector<int>(count, -1),
                  std::vector<bool>(count, false)};
    for (size_t i = 0; i < count; i++) {
        if (!feeds_next(program, i)) continue;
        // Nobody else may read what is then never written.
        const View& out = program.ops[i].out;
        bool alone = true;
        for (size_t j = 0; j < count && alone; j++) {
            const bool reads = overlap(program.ops[j].a, out) || overlap(program.ops[j].b, out);
            alone = !reads || (j > 0 && feeds_next(program, j - 1));
        }
        if (!alone) continue;
        fusion.left_out[i] = true;
        fusion.norm_of[i + 1] = static_cast<int>(i);
    }
    return fusion;
}

int widest_norm(const Program& program, const Fusion& fusion) {
    int widest = 0;
    for (size_t i = 0; i < program.ops.size(); i++)
        if (fusion.left_out[i]) widest = std::max(widest, program.ops[i].dim);
    return widest;
}

}  // namespace bw
