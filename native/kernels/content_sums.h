// Content sums: 64 bits that tell whether two copies of a block of a tensor hold the same bytes.
//
// A block is a run of rows, or of columns over all rows. Its sum is one over its 64-byte stripes,
// modulo 2^64, of terms that depend on a stripe's bytes, its row and its place in the block's part
// of that row. So rows may be summed in any order, in any pieces, by any thread. The terms are
// those of XXH3's inner loop (products of the halves of keyed words, and the words themselves),
// which compilers turn into vectors. They tell damaged and different copies, no enemies.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/kernels.h"

namespace bw {

// How rows of a tensor fall into blocks: `rows` rows each, or `columns_bytes` bytes of every row.
// One of the two is 0.
struct Blocks {
    uint64_t rows;
    size_t column_bytes;
};

// Adds rows to the sums of their blocks.
class ContentSums {
  public:
    // `first_row` is where the first row that will be added stands in its tensor; `rows` of them,
    // `row_bytes` each, from the start of a block of columns on.
    ContentSums(Blocks blocks, uint64_t first_row, size_t rows, size_t row_bytes);
    // Row `index`, counted from `first_row`, or from where `go_on` was called.
    void add(size_t index, const uint8_t* bytes);
    // The next rows are counted from `rows` further on.
    void go_on(size_t rows) { done_ += rows; }
    // One sum for each block that the rows belong to, the first row's first.
    std::vector<uint64_t> finish() const;

  private:
    const Kernels* kernels_;
    Blocks blocks_;
    uint64_t first_row_;
    uint64_t done_ = 0;
    size_t row_bytes_;
    std::vector<uint64_t> lanes_;  // kContentLanes for each block
};

}  // namespace bw
