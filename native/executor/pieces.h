// In what pieces long products are computed: each takes well under a second on any processor, so
// that the work shows progress.
#pragma once
#include <algorithm>
#include <cstdint>

#include "executor/program.h"

namespace bw {

constexpr int64_t kPieceWork = int64_t{1} << 27;  // multiply-adds

// Panels of a matrix that go together, with so many rows.
inline int panels_of_a_piece(const Matrix& matrix, int rows) {
    const int64_t panel_work = static_cast<int64_t>(rows) * matrix.layout.k * kPanel;
    return static_cast<int>(std::max<int64_t>(1, kPieceWork / std::max<int64_t>(1, panel_work)));
}

}  // namespace bw
