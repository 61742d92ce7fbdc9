// Transport: moves bytes between two nodes without blocking. Knows no frames.
#pragma once
#include <poll.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "exchange/libcrypto.h"

namespace bw {

constexpr int64_t kGone = -1, kDamaged = -2, kTampered = -3;

class Transport {
  public:
    virtual ~Transport() = default;
    // Bytes moved, 0 where it would block, kGone where the other side is gone; receive: kDamaged
    // where what came cannot be what was sent, kTampered where that may be on purpose.
    virtual int64_t send(const void* data, size_t bytes) = 0;
    virtual int64_t receive(void* data, size_t bytes) = 0;
    // Goes on with bytes that send() has taken but that have yet to leave; true where none are
    // left.
    virtual bool flush() { return true; }
    // False where bytes never leave this machine's memory, or damage cannot pass: checksums of
    // payloads are left out.
    virtual bool on_wire() const { return true; }
    // Whether something has begun to come that receive() cannot give yet.
    virtual bool partial() const { return false; }
    // What the wire carries for so many bytes that one send() took.
    virtual size_t wire_bytes(size_t sent) const { return sent; }
    // Spent on sealing and opening so far.
    virtual double sealing_seconds() const { return 0; }
    // For poll(2); -1 where there is nothing to wait on but time.
    virtual int descriptor() const { return -1; }
    // Around a wait on the descriptor for something to read, for room to write, or for both.
    // Gives poll's events, or 0 where one of them is there already: don't wait then.
    virtual short prepare_wait(bool reading, bool writing) {
        return static_cast<short>((reading ? POLLIN : 0) | (writing ? POLLOUT : 0));
    }
    virtual void finish_wait() {}  // without a wait: sees whether the other side is gone
};

// Takes over a connected stream socket. `busy` lets the system poll the network card itself while
// it looks for data, where it allows that.
std::unique_ptr<Transport> tcp_transport(int descriptor, bool busy);

// Two rings in memory that both ends of a socket on one host have mapped; the socket wakes a
// sleeping end and tells when the other is gone. `memory` is a descriptor of at least
// shared_transport_bytes(); both are taken over. One end is `first`.
std::unique_ptr<Transport> shared_transport(int descriptor, int memory, bool first);
size_t shared_transport_bytes();

// The same bytes as over a link of `latency` seconds one way and `bytes_per_s`; both ends must be
// processes of one host, and wrapped. What `inner` takes itself comes on top.
std::unique_ptr<Transport> emulated_transport(std::unique_ptr<Transport> inner, double latency,
                                              double bytes_per_s);

// The same bytes in records that are sealed by keys which the two ends alone have: 32 bytes each,
// copied. libcrypto must be open (exchange/libcrypto.h). A key is renewed after so many seals.
struct SealedLink {
    Cipher cipher;
    const uint8_t *send_key, *receive_key;
    uint64_t seals_a_key = uint64_t{1} << 22;
};
std::unique_ptr<Transport> sealed_transport(std::unique_ptr<Transport> inner,
                                            const SealedLink& link);

// Both ends of a pipe inside one process.
std::pair<std::unique_ptr<Transport>, std::unique_ptr<Transport>> local_transport();

}  // namespace bw
