// Transport: moves bytes between two nodes without blocking. Knows no frames.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace bw {

class Transport {
  public:
    virtual ~Transport() = default;
    // Bytes moved, 0 where it would block, -1 where the other side is gone.
    virtual int64_t send(const void* data, size_t bytes) = 0;
    virtual int64_t receive(void* data, size_t bytes) = 0;
    // For poll(2); -1 where there is nothing to wait on but time.
    virtual int descriptor() const { return -1; }
};

// Takes over a connected stream socket.
std::unique_ptr<Transport> tcp_transport(int descriptor);

// Both ends of a pipe inside one process, `capacity` bytes each way.
std::pair<std::unique_ptr<Transport>, std::unique_ptr<Transport>> local_transport(
    size_t capacity = size_t{1} << 20);

}  // namespace bw
