// CRC-32C (Castagnoli; RFC 3720, appendix B.4): tells damage on a wire, no enemies. The same value
// on every processor.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace bw {

// Goes on from the checksum of the bytes before; 0 is that of none.
uint32_t crc32c(uint32_t sum, const void* data, size_t bytes);

// How it is computed; crc32c() takes the first of those that this processor has.
struct Crc32cVariant {
    const char* name;
    uint32_t (*extend)(uint32_t sum, const uint8_t* data, size_t bytes);
};
std::vector<Crc32cVariant> crc32c_variants();
// Whether a variant gives the published values, at any length and alignment.
bool crc32c_holds(const Crc32cVariant& variant);

}  // namespace bw
