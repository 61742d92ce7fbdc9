#include "core/stored.h"

#include <cstdint>
#include <cstring>

#include "core/clones.h"
#include "core/numerics.h"

namespace bw {

// By the bits of the magnitudes, as integers: the same in every float mode, and a NaN stays.
BW_CLONES void store_values(const float* values, size_t count, float* out) {
    uint32_t smallest;
    std::memcpy(&smallest, &kSmallestStored, sizeof smallest);
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        std::memcpy(&bits, values + i, sizeof bits);
        bits = (bits & 0x7fffffffu) < smallest ? 0 : bits;
        std::memcpy(out + i, &bits, sizeof bits);
    }
}

}  // namespace bw
