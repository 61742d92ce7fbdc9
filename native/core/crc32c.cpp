#include "core/crc32c.h"

#include <array>
#include <cstring>

#include "core/crc32c_polynomial.h"
#include "core/system.h"

namespace bw {

#if defined(BW_HAS_CRC32C_INSTRUCTION)
uint32_t crc32c_instruction(uint32_t sum, const uint8_t* data, size_t bytes);
#endif

namespace {

// Eight bytes are looked up side by side: table i is for a byte with i bytes behind it.
struct Slices {
    uint32_t of[8][256];
};

constexpr Slices make_slices() {
    Slices slices{};
    for (uint32_t value = 0; value < 256; value++) {
        uint32_t sum = value;
        for (auto& table : slices.of) {
            sum = crc32c_polynomial::after_zero_byte(sum);
            table[value] = sum;
        }
    }
    return slices;
}

constexpr Slices kSlices = make_slices();

uint32_t by_tables(uint32_t sum, const uint8_t* data, size_t bytes) {
    sum = ~sum;
    for (; bytes >= 8; bytes -= 8, data += 8) {
        uint64_t word;
        std::memcpy(&word, data, sizeof word);
        word ^= sum;
        sum = 0;
        for (size_t i = 0; i < 8; i++) sum ^= kSlices.of[7 - i][(word >> (8 * i)) & 0xff];
    }
    for (; bytes > 0; bytes--, data++) sum = (sum >> 8) ^ kSlices.of[0][(sum ^ *data) & 0xff];
    return ~sum;
}

#if defined(BW_HAS_CRC32C_INSTRUCTION)
#if defined(__x86_64__)
constexpr const char* kInstruction = "sse4.2";
bool has_instruction() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("sse4.2");
}
#else
constexpr const char* kInstruction = "armv8-crc";
bool has_instruction() { return has_arm_crc32(); }
#endif
#endif

const Crc32cVariant kChosen = crc32c_variants().front();

}  // namespace

std::vector<Crc32cVariant> crc32c_variants() {
    std::vector<Crc32cVariant> variants;
#if defined(BW_HAS_CRC32C_INSTRUCTION)
    if (has_instruction()) variants.push_back({kInstruction, crc32c_instruction});
#endif
    variants.push_back({"tables", by_tables});
    return variants;
}

uint32_t crc32c(uint32_t sum, const void* data, size_t bytes) {
    return kChosen.extend(sum, static_cast<const uint8_t*>(data), bytes);
}

bool crc32c_holds(const Crc32cVariant& variant) {
    // Bit by bit, as the standard says it; long enough for every way through the variants.
    std::array<uint8_t, 4000> data{};
    uint64_t state = 1;
    for (uint8_t& byte : data) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        byte = static_cast<uint8_t>(state >> 56);
    }
    bool same = variant.extend(0, reinterpret_cast<const uint8_t*>("123456789"), 9) == 0xe3069283;
    for (size_t from : {0, 1, 7}) {
        uint32_t expected = ~uint32_t{0};
        for (size_t bytes = 0; from + bytes < data.size(); bytes++) {
            same &= variant.extend(0, data.data() + from, bytes) == ~expected;
            expected = crc32c_polynomial::after_zero_byte(expected ^ data[from + bytes]);
        }
    }
    return same;
}

}  // namespace bw
