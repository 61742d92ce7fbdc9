// The arithmetic of CRC-32C that tables are made of when the program is compiled. Plain arrays:
// code of the library's could be shared by files that are compiled for different processors.
#pragma once
#include <cstddef>
#include <cstdint>

namespace bw::crc32c_polynomial {

constexpr uint32_t kReflected = 0x82f63b78;

// The register after a zero byte.
constexpr uint32_t after_zero_byte(uint32_t sum) {
    for (int bit = 0; bit < 8; bit++) sum = (sum >> 1) ^ (sum & 1 ? kReflected : 0);
    return sum;
}

// Zero bytes change a register linearly: what they make of each bit says what they make of all.
struct Matrix {
    uint32_t of_bit[32];

    constexpr uint32_t apply(uint32_t sum) const {
        uint32_t out = 0;
        for (int bit = 0; bit < 32; bit++)
            if ((sum >> bit) & 1) out ^= of_bit[bit];
        return out;
    }
    constexpr Matrix after(const Matrix& first) const {
        Matrix both{};
        for (int bit = 0; bit < 32; bit++) both.of_bit[bit] = apply(first.of_bit[bit]);
        return both;
    }
};

// What a register becomes after some zero bytes, by the values of its four bytes: the xor of the
// four entries.
struct Shift {
    uint32_t of[4][256];
};

constexpr Shift shift_by(size_t bytes) {
    Matrix power{}, whole{};
    for (int bit = 0; bit < 32; bit++) {
        whole.of_bit[bit] = uint32_t{1} << bit;
        power.of_bit[bit] = after_zero_byte(whole.of_bit[bit]);
    }
    for (; bytes > 0; bytes /= 2) {
        if (bytes % 2 == 1) whole = power.after(whole);
        power = power.after(power);
    }
    Shift shift{};
    for (int byte = 0; byte < 4; byte++)
        for (uint32_t value = 0; value < 256; value++)
            shift.of[byte][value] = whole.apply(value << (8 * byte));
    return shift;
}

}  // namespace bw::crc32c_polynomial
