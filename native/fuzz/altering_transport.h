// A link that does something to what a node sends: to one of its frames, or to one byte.
#pragma once
#include <memory>
#include <string>

#include "exchange/frame.h"
#include "exchange/transport.h"
#include "fuzz/random.h"

namespace bw::fuzz {

enum class Alteration {
    none,
    pieces,       // everything arrives, a few bytes at a time
    flip_header,  // bits of a frame's header
    flip_payload,
    lie,   // another number in a header, and the right checksum
    drop,  // a frame
    repeat,
    swap,       // with the next one
    garbage,    // before a frame
    cut,        // in a frame, and the connection ends
    silence,    // in a frame, and nothing comes any more
    drip,       // from a frame on, a byte now and then
    flip_byte,  // of the stream, whatever it belongs to
    drop_byte,
    repeat_byte,
};
constexpr int kAlterations = 15;
constexpr int kStreamAlterations = 3;  // the last ones

// What is done, and to what; then what came of it. One node's thread writes it.
struct Altered {
    Alteration how = Alteration::none;
    bool control = false;  // to frames that are no data and no step
    bool records = false;  // what one send() brings stands for a frame, whatever it holds
    uint64_t at = 0;       // which of those frames, or which byte
    bool done = false;
    bool work = false;  // it was done to a data or step frame
};

std::unique_ptr<Transport> altering_transport(std::unique_ptr<Transport> inner, Altered& altered,
                                              Random random);

}  // namespace bw::fuzz
