#include "kernels/content_sums.h"

#include "kernels/isa.h"

namespace bw {

namespace {

// Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
uint64_t splitmix64(uint64_t x) {
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

// Asking the processor what it is takes a virtual machine some microseconds.
const Kernels& fastest() {
    static const Kernels& kernels = find_kernels("");
    return kernels;
}

}  // namespace

ContentSums::ContentSums(Blocks blocks, uint64_t first_row, size_t rows, size_t row_bytes)
    : kernels_(&fastest()), blocks_(blocks), first_row_(first_row), row_bytes_(row_bytes) {
    size_t count;
    if (blocks.rows) {
        const uint64_t last = first_row + (rows ? rows - 1 : 0);
        count = rows ? static_cast<size_t>(last / blocks.rows - first_row / blocks.rows + 1) : 0;
    } else {
        count = (row_bytes + blocks.column_bytes - 1) / blocks.column_bytes;
    }
    lanes_.assign(kContentLanes * count, 0);
}

void ContentSums::add(size_t index, const uint8_t* bytes) {
    const uint64_t row = first_row_ + done_ + index;
    uint64_t* sums = lanes_.data();
    if (blocks_.rows) sums += kContentLanes * (row / blocks_.rows - first_row_ / blocks_.rows);
    kernels_->content_row(bytes, row_bytes_, blocks_.rows ? row_bytes_ : blocks_.column_bytes,
                          splitmix64(row), sums);
}

std::vector<uint64_t> ContentSums::finish() const {
    std::vector<uint64_t> sums(lanes_.size() / kContentLanes);
    for (size_t i = 0; i < lanes_.size(); i++)
        sums[i / kContentLanes] += lanes_[i] * (splitmix64(i % kContentLanes) | 1);
    return sums;
}

}  // namespace bw
