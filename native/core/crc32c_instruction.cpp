// CRC-32C with the processor's own instruction, on three streams side by side: one takes three
// cycles, but another can begin in each. Compiled for processors that have it, so nothing here may
// be inline code that files for others share.
#include <cstring>

#include "core/crc32c.h"
#include "core/crc32c_polynomial.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#else
#include <arm_acle.h>
#endif

namespace bw {

uint32_t crc32c_instruction(uint32_t sum, const uint8_t* data, size_t bytes);

namespace {

using crc32c_polynomial::Shift;

#if defined(__x86_64__)
using Register = uint64_t;
inline Register take_word(Register sum, uint64_t word) { return _mm_crc32_u64(sum, word); }
inline Register take_byte(Register sum, uint8_t byte) {
    return _mm_crc32_u8(static_cast<uint32_t>(sum), byte);
}
#else
using Register = uint32_t;
inline Register take_word(Register sum, uint64_t word) { return __crc32cd(sum, word); }
inline Register take_byte(Register sum, uint8_t byte) { return __crc32cb(sum, byte); }
#endif

// Bytes of a stream: long ones, so that joining is little beside them, then short ones.
constexpr size_t kLong = 1024, kShort = 128;
constexpr Shift kAfterLong = crc32c_polynomial::shift_by(kLong);
constexpr Shift kAfterShort = crc32c_polynomial::shift_by(kShort);

inline Register shifted(const Shift& shift, Register sum) {
    return shift.of[0][sum & 0xff] ^ shift.of[1][(sum >> 8) & 0xff] ^
           shift.of[2][(sum >> 16) & 0xff] ^ shift.of[3][(sum >> 24) & 0xff];
}

inline uint64_t word_at(const uint8_t* data) {
    uint64_t word;
    std::memcpy(&word, data, sizeof word);
    return word;
}

template <size_t kStream>
inline Register take_three(Register sum, const uint8_t* data, const Shift& after_stream) {
    Register second = 0, third = 0;
    for (size_t at = 0; at < kStream; at += 8) {
        sum = take_word(sum, word_at(data + at));
        second = take_word(second, word_at(data + kStream + at));
        third = take_word(third, word_at(data + 2 * kStream + at));
    }
    return shifted(after_stream, shifted(after_stream, sum) ^ second) ^ third;
}

}  // namespace

uint32_t crc32c_instruction(uint32_t start, const uint8_t* data, size_t bytes) {
    Register sum = ~start;
    for (; bytes >= 3 * kLong; bytes -= 3 * kLong, data += 3 * kLong)
        sum = take_three<kLong>(sum, data, kAfterLong);
    for (; bytes >= 3 * kShort; bytes -= 3 * kShort, data += 3 * kShort)
        sum = take_three<kShort>(sum, data, kAfterShort);
    for (; bytes >= 8; bytes -= 8, data += 8) sum = take_word(sum, word_at(data));
    for (; bytes > 0; bytes--, data++) sum = take_byte(sum, *data);
    return ~static_cast<uint32_t>(sum);
}

}  // namespace bw
