#include "exchange/transport.h"

#include "exchange/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

namespace bw {

namespace {

#if defined(SO_BUSY_POLL)
constexpr int kBusyPoll = 50;  // microseconds
#endif

class TcpTransport final : public Transport {
  public:
    TcpTransport(int descriptor, bool busy) : descriptor_(descriptor) {
        int one = 1;
        fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK);
        // Fails harmlessly on socket pairs.
        setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
#if defined(SO_BUSY_POLL)
        // Refused where it needs a privilege; then the card's interrupts tell.
        if (busy) setsockopt(descriptor, SOL_SOCKET, SO_BUSY_POLL, &kBusyPoll, sizeof kBusyPoll);
#else
        (void)busy;
#endif
#if defined(SO_NOSIGPIPE)
        setsockopt(descriptor, SOL_SOCKET, SO_NOSIGPIPE, &one, sizeof one);
#endif
    }
    ~TcpTransport() override { close(descriptor_); }

    int64_t send(const void* data, size_t bytes) override {
#if defined(MSG_NOSIGNAL)
        constexpr int flags = MSG_NOSIGNAL;
#else
        constexpr int flags = 0;
#endif
        ssize_t moved = ::send(descriptor_, data, bytes, flags);
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
