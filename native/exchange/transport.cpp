#include "exchange/transport.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "exchange/ring.h"
#include "exchange/socket.h"

namespace bw {

namespace {

class TcpTransport final : public Transport {
  public:
    TcpTransport(int descriptor, bool busy) : descriptor_(descriptor) {
        prepare_socket(descriptor);
        // Fails harmlessly on socket pairs.
        int one = 1;
        setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (busy) ask_busy_poll(descriptor);
    }
    ~TcpTransport() override { close(descriptor_); }

    int64_t send(const void* data, size_t bytes) override {
        ssize_t moved = send_quietly(descriptor_, data, bytes);
        if (moved >= 0) return moved;
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : kGone;
    }
    int64_t receive(void* data, size_t bytes) override {
        ssize_t moved = ::recv(descriptor_, data, bytes, 0);
        if (moved > 0) return moved;
        if (moved == 0) return kGone;
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : kGone;
    }
    int descriptor() const override { return descriptor_; }

  private:
    int descriptor_;
};

class LocalTransport final : public Transport {
  public:
    LocalTransport(std::shared_ptr<Ring> in, std::shared_ptr<Ring> out)
        : in_(std::move(in)), out_(std::move(out)) {}
    ~LocalTransport() override {
        in_->closed.store(1, std::memory_order_release);
        out_->closed.store(1, std::memory_order_release);
    }
    int64_t send(const void* data, size_t bytes) override {
        return out_->write(static_cast<const uint8_t*>(data), bytes);
    }
    int64_t receive(void* data, size_t bytes) override {
        return in_->read(static_cast<uint8_t*>(data), bytes);
    }
    bool on_wire() const override { return false; }

  private:
    std::shared_ptr<Ring> in_, out_;
};

}  // namespace

std::unique_ptr<Transport> tcp_transport(int descriptor, bool busy) {
    return std::make_unique<TcpTransport>(descriptor, busy);
}

std::pair<std::unique_ptr<Transport>, std::unique_ptr<Transport>> local_transport() {
    auto there = std::make_shared<Ring>(), back = std::make_shared<Ring>();
    return {std::make_unique<LocalTransport>(back, there),
            std::make_unique<LocalTransport>(there, back)};
}

}  // namespace bw
