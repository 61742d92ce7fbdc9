// Shared memory between two processes of one host: no system call while both are awake.
#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <stdexcept>

#include "exchange/ring.h"
#include "exchange/socket.h"
#include "exchange/transport.h"

namespace bw {

namespace {

constexpr int kMostBells = 64;  // drained at a time; a peer can't hold us here

class SharedTransport final : public Transport {
  public:
    SharedTransport(int descriptor, void* memory, bool first)
        : descriptor_(descriptor), memory_(memory) {
        auto* rings = static_cast<Ring*>(memory);
        in_ = rings + (first ? 0 : 1);
        out_ = rings + (first ? 1 : 0);
        prepare_socket(descriptor);
    }
    ~SharedTransport() override {
        in_->closed.store(1);
        out_->closed.store(1);
        close(descriptor_);
        munmap(memory_, shared_transport_bytes());
    }

    int64_t send(const void* data, size_t bytes) override {
        const int64_t moved = out_->write(static_cast<const uint8_t*>(data), bytes);
        if (moved > 0) ring_bell(out_->reader_sleeps);
        return moved == 0 && gone_ ? kGone : moved;
    }
    int64_t receive(void* data, size_t bytes) override {
        const int64_t moved = in_->read(static_cast<uint8_t*>(data), bytes);
        if (moved > 0) ring_bell(in_->writer_sleeps);
        return moved == 0 && gone_ ? kGone : moved;
    }
    bool on_wire() const override { return false; }
    int descriptor() const override { return descriptor_; }

    short prepare_wait(bool reading, bool writing) override {
        if (reading) in_->reader_sleeps.store(1, std::memory_order_seq_cst);
        if (writing) out_->writer_sleeps.store(1, std::memory_order_seq_cst);
        // What came before the flags were up rang no bell.
        const bool moved = (reading && in_->readable()) || (writing && out_->writable());
        return moved || in_->closed.load() || gone_ ? 0 : POLLIN;
    }
    void finish_wait() override {
        in_->reader_sleeps.store(0, std::memory_order_relaxed);
        out_->writer_sleeps.store(0, std::memory_order_relaxed);
        uint8_t bells[256];
        ssize_t moved = 1;
        for (int i = 0; i < kMostBells && moved > 0; i++)
            moved = ::recv(descriptor_, bells, sizeof bells, 0);
        // The end of the socket tells of a process that died without closing its ring.
        if (moved == 0 || (moved < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
            gone_ = true;
    }

  private:
    void ring_bell(std::atomic<uint32_t>& sleeps) {
        std::atomic_thread_fence(std::memory_order_seq_cst);
        if (sleeps.load(std::memory_order_relaxed) == 0) return;
        const uint8_t bell = 1;
        send_quietly(descriptor_, &bell, 1);
    }

    int descriptor_;
    void* memory_;
    Ring *in_, *out_;
    bool gone_ = false;
};

}  // namespace

size_t shared_transport_bytes() { return 2 * sizeof(Ring); }

std::unique_ptr<Transport> shared_transport(int descriptor, int memory, bool first) {
    struct stat status{};
    void* mapped = MAP_FAILED;
    if (fstat(memory, &status) == 0 &&
        static_cast<size_t>(status.st_size) >= shared_transport_bytes())
        mapped =
            mmap(nullptr, shared_transport_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    close(memory);
    if (mapped == MAP_FAILED) {
        close(descriptor);
        throw std::runtime_error("the memory that two nodes share cannot be mapped");
    }
    return std::make_unique<SharedTransport>(descriptor, mapped, first);
}

}  // namespace bw
