// Ring: bytes from one writer to one reader through memory that both see. Plain layout, so that it
// may lie in memory that two processes share; zeroed memory is an empty ring.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>

namespace bw {

struct Ring {
    static constexpr size_t kCapacity = size_t{1} << 20;

    alignas(64) std::atomic<uint64_t> written;
    alignas(64) std::atomic<uint64_t> consumed;
    alignas(64) std::atomic<uint32_t> reader_sleeps;
    std::atomic<uint32_t> writer_sleeps;
    std::atomic<uint32_t> closed;
    alignas(64) uint8_t bytes[kCapacity];

    // Bytes moved; -1 once the other side has closed. Counters of a hostile peer can't lead outside
    // the ring: offsets are taken modulo its size and counts are bounded.
    int64_t write(const uint8_t* data, size_t wanted) {
        if (closed.load(std::memory_order_acquire)) return -1;
        const uint64_t at = written.load(std::memory_order_relaxed);
        const uint64_t used = at - consumed.load(std::memory_order_acquire);
        if (used > kCapacity) return -1;
        const size_t n = std::min<size_t>(kCapacity - used, wanted), offset = at % kCapacity;
        const size_t first = std::min(n, kCapacity - offset);
        std::memcpy(bytes + offset, data, first);
        std::memcpy(bytes, data + first, n - first);
        written.store(at + n, std::memory_order_release);
        return static_cast<int64_t>(n);
    }
    int64_t read(uint8_t* data, size_t wanted) {
        // The order matters: what was written before closing is still read.
        const bool ended = closed.load(std::memory_order_acquire) != 0;
        const uint64_t at = consumed.load(std::memory_order_relaxed);
        const uint64_t there = written.load(std::memory_order_acquire) - at;
        if (there > kCapacity) return -1;
        const size_t n = std::min<size_t>(there, wanted);
        if (n == 0) return ended ? -1 : 0;
        const size_t offset = at % kCapacity, first = std::min(n, kCapacity - offset);
        std::memcpy(data, bytes + offset, first);
        std::memcpy(data + first, bytes, n - first);
        consumed.store(at + n, std::memory_order_release);
        return static_cast<int64_t>(n);
    }
    bool readable() const {
        return written.load(std::memory_order_seq_cst) != consumed.load(std::memory_order_relaxed);
    }
    bool writable() const {
        return written.load(std::memory_order_relaxed) - consumed.load(std::memory_order_seq_cst) !=
               kCapacity;
    }
};

}  // namespace bw
