// Numbers for the golden digests, from integers alone: the same on every machine.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/checksum.h"

namespace bw {

constexpr int kSmall = -100;  // in the place of a reach: numbers whose products are tiny

// splitmix64.
class Numbers {
  public:
    explicit Numbers(uint64_t seed) : state_(seed) {}

    uint64_t bits() {
        uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        return z ^ (z >> 31);
    }
    // Magnitudes from 2^-12 to 2^(reach + 1), few of them near the top, and both signs.
    float next(int reach) {
        if (reach == kSmall) return small();
        const uint64_t word = bits();
        const auto fraction = static_cast<float>(0x800000 + (word & 0x7fffff));  // exact
        const int exponent = static_cast<int>((word >> 32) % static_cast<uint64_t>(12 + reach));
        const float size = fraction * 0x1p-35f * static_cast<float>(1u << exponent);
        return (word >> 63) ? -size : size;
    }
    std::vector<float> many(size_t count, int reach) {
        std::vector<float> values(count);
        for (float& value : values) value = next(reach);
        return values;
    }

  private:
    // Down to the smallest that is stored, zeros, and every eighth about 1.
    float small() {
        const uint64_t word = bits();
        if (word % 8 == 0) return 0.0f;
        const auto fraction = static_cast<float>(0x800000 + (word >> 40 & 0x7fffff));
        const int exponent = word % 8 == 1 ? 40 : static_cast<int>((word >> 32) % 30);
        const float size = fraction * 0x1p-63f * static_cast<float>(uint64_t{1} << exponent);
        return (word >> 63) ? -size : size;
    }

    uint64_t state_;
};

template <typename T>
uint64_t digest(const std::vector<T>& values) {
    return checksum(reinterpret_cast<const uint8_t*>(values.data()), sizeof(T) * values.size());
}

}  // namespace bw
