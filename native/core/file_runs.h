// Runs of bytes at even distances in an open file: the rows of a rectangle of a stored tensor.
// Reads these and no others, but for gaps between them that are shorter than a page: what lies in
// one is read from the disk anyway. Knows no formats.
#pragma once
#include <cstddef>
#include <cstdint>

namespace bw {

class FileRuns {
  public:
    // `count` runs of `length` bytes, the first at `start`, `stride` bytes from one to the next.
    FileRuns(int descriptor, uint64_t start, uint64_t stride, size_t length, size_t count);

    // Bytes from one run to the next, where they are read to.
    size_t pitch() const { return pitch_; }

    // Reads `count` runs from number `first` on to `target`, which has room for so many times
    // `pitch` bytes. False where the file ends too early, or cannot be read.
    bool read(size_t first, size_t count, uint8_t* target);

  private:
    int descriptor_;
    uint64_t start_, stride_, stop_;
    size_t length_, pitch_;
    bool asked_ = false;  // whether the system was asked to fetch all of it

    bool read_at(uint64_t offset, size_t bytes, uint8_t* target);
};

}  // namespace bw
