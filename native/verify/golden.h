// Golden digests: what every kernel makes of fixed numbers, as 64 bits, beside the digest that
// docs/numerics.md's rules give. They differ only where a processor, a compiler or a kernel does
// not do what the rules say, or after a change of the rules: then the numerics version changes too,
// and the stored digests belong to the new one.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/float_mode.h"
#include "kernels/kernels.h"

namespace bw {

struct Golden {
    std::string what;
    uint64_t digest, expected;

    bool same() const { return digest == expected; }
};

// Takes some milliseconds; well under a second with portable kernels. Subnormals, kept or flushed,
// must not show.
std::vector<Golden> golden(const Kernels& kernels, Subnormals subnormals);

}  // namespace bw
