#include "exchange/socket.h"

#include <fcntl.h>
#include <sys/socket.h>

namespace bw {

void prepare_socket(int descriptor) {
    fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK);
#if defined(SO_NOSIGPIPE)
    // macOS: for the socket. Others say so with each send.
    int one = 1;
    setsockopt(descriptor, SOL_SOCKET, SO_NOSIGPIPE, &one, sizeof one);
#endif
}

void ask_busy_poll(int descriptor) {
#if defined(SO_BUSY_POLL)
    // Refused where it needs a privilege; then the card's interrupts tell.
    constexpr int kMicroseconds = 50;
    setsockopt(descriptor, SOL_SOCKET, SO_BUSY_POLL, &kMicroseconds, sizeof kMicroseconds);
#else
    (void)descriptor;
#endif
}

ssize_t send_quietly(int descriptor, const void* data, size_t bytes) {
#if defined(MSG_NOSIGNAL) && !defined(SO_NOSIGPIPE)
    return ::send(descriptor, data, bytes, MSG_NOSIGNAL);
#else
    return ::send(descriptor, data, bytes, 0);
#endif
}

}  // namespace bw
