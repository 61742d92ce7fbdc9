// Arena: one anonymous mapping for all packed weights of a node (huge pages where the system gives
// them), handed out in pieces. Knows no formats.
#pragma once
#include <cstddef>
#include <cstdint>

namespace bw {

class Arena {
  public:
    // Throws std::bad_alloc where the system has no address space or memory for it.
    explicit Arena(size_t bytes);
    ~Arena();
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    // A zeroed piece aligned to 64 bytes; throws std::bad_alloc past the end.
    uint8_t* take(size_t bytes);
    // Gives the whole pages of a piece back to the system; it holds anything afterwards.
    void forget(const uint8_t* from, size_t bytes);
    size_t size() const { return size_; }
    size_t used() const { return used_; }
    uint8_t* base() const { return base_; }

  private:
    uint8_t* base_ = nullptr;
    size_t size_ = 0, used_ = 0, mapped_ = 0;
    uint8_t* mapping_ = nullptr;
};

}  // namespace bw
