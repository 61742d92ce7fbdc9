// Sockets of links, where systems differ: a peer that is gone must be an error of send(), and no
// signal that ends the process.
#pragma once
#include <sys/types.h>

#include <cstddef>

namespace bw {

// A connected stream socket of which no call blocks, and to which send_quietly() is safe.
void prepare_socket(int descriptor);

// Lets the system poll the network card itself while it looks for data, where it allows that.
void ask_busy_poll(int descriptor);

// As send(2), and no signal.
ssize_t send_quietly(int descriptor, const void* data, size_t bytes);

}  // namespace bw
