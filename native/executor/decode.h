// From bytes to a program that was checked: the one way in for programs that were lowered
// elsewhere, by the Python side or for a dumped file. programs/encoding.py describes the bytes.
#pragma once
#include <cstddef>
#include <cstdint>

#include "executor/program.h"

namespace bw {

// The program without its weights: matrices without panels and of no format yet, vectors without
// values. Throws std::invalid_argument, in a sentence that names the operation, for bytes that are
// no program or one that check_program refuses. Takes memory in proportion to the bytes.
Program decode_program(const uint8_t* data, size_t size);

}  // namespace bw
