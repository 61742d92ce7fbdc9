#include "executor/wire.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/clones.h"
#include "core/numerics.h"

namespace bw {

namespace {

constexpr int kGroupSize = 32;
constexpr float kBeyond = 0x1p62f;

uint16_t to_bf16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float from_bf16(uint16_t half) {
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

int64_t rounded(float value) { return static_cast<int64_t>(std::llrintf(value)); }

// One group: its scale, then an int8 a value. False where a value is not finite.
bool quantise(const float* values, int size, uint8_t* out) {
    float amax = 0;
    bool finite = true;
    for (int i = 0; i < size; i++) {
        amax = std::max(amax, std::fabs(values[i]));
        finite &= std::isfinite(values[i]);
    }
    if (!finite) return false;
    const bool zero = amax < kSmallestStored;
    const float scale = zero ? 0.0f : amax / 127.0f, inverse = zero ? 0.0f : 127.0f / amax;
    std::memcpy(out, &scale, sizeof scale);
    for (int i = 0; i < size; i++)
        out[sizeof scale + static_cast<size_t>(i)] =
            static_cast<uint8_t>(static_cast<int8_t>(rounded(values[i] * inverse)));
    return true;
}

size_t group_bytes(int size) { return sizeof(float) + static_cast<size_t>(size); }

void dequantise(const uint8_t* in, int size, float* values) {
    float scale;
    std::memcpy(&scale, in, sizeof scale);
    for (int i = 0; i < size; i++) {
        const auto q = static_cast<int8_t>(in[sizeof scale + static_cast<size_t>(i)]);
        values[i] = static_cast<float>(q) * scale;
    }
}

size_t quantised_bytes(int size) {
    return static_cast<size_t>((size + kGroupSize - 1) / kGroupSize) * sizeof(float) +
           static_cast<size_t>(size);
}

// The groups of a block or a row.
template <typename F>
void each_group(int size, F&& work) {
    for (int from = 0; from < size; from += kGroupSize)
        work(from, std::min(kGroupSize, size - from));
}

// Inline, so that whole blocks become straight vector code.
inline bool narrow(const int64_t* values, int size, uint8_t* out) {
    auto* words = reinterpret_cast<int32_t*>(out);
    int64_t excess = 0;
    for (int i = 0; i < size; i++) {
        words[i] = static_cast<int32_t>(values[i]);
        excess |= values[i] ^ static_cast<int64_t>(words[i]);
    }
    return excess == 0;
}

template <typename T>
inline void add_or_copy(int64_t* values, int size, const T* block, bool add) {
    if (add) {
        for (int i = 0; i < size; i++)
            values[i] = static_cast<int64_t>(static_cast<uint64_t>(values[i]) +
                                             static_cast<uint64_t>(int64_t{block[i]}));
    } else {
        for (int i = 0; i < size; i++) values[i] = block[i];
    }
}

template <typename T>
void put(int64_t* values, int size, const T* block, bool add) {
    if (size == kBlock)
        add_or_copy(values, kBlock, block, add);
    else
        add_or_copy(values, size, block, add);
}

bool put_floats(int64_t* values, int size, const float* block, bool add) {
    int64_t whole[kBlock];
    bool fits = true;
    for (int i = 0; i < size; i++) {
        const bool sane = std::fabs(block[i]) < kBeyond;
        fits &= sane;
        whole[i] = sane ? rounded(block[i]) : 0;
    }
    put(values, size, whole, add);
    return fits;
}

}  // namespace

int wire_tag(WireFormat format) {
    return format == WireFormat::exact ? 4 : format == WireFormat::bf16 ? 2 : 1;
}

bool tag_fits(WireFormat format, int tag) {
    return tag == wire_tag(format) || (format == WireFormat::exact && tag == 8);
}

size_t block_bytes(int tag, int size) {
    return tag == 1 ? quantised_bytes(size) : static_cast<size_t>(tag) * static_cast<size_t>(size);
}

size_t blocks_bytes(const Blocks& blocks, int tag, int from, int to) {
    const int per_row = blocks.per_row();
    const int tail = blocks.width - (per_row - 1) * kBlock;
    // Blocks that are the last of their row.
    const int tails = to / per_row - from / per_row;
    return static_cast<size_t>(to - from - tails) * block_bytes(tag, kBlock) +
           static_cast<size_t>(tails) * block_bytes(tag, tail);
}

size_t most_message_bytes(int rows, int width) {
    const auto all = static_cast<size_t>(rows);
    return tag_bytes(all * static_cast<size_t>(Blocks{rows, width}.per_row())) +
           all * block_bytes(8, width);
}

BW_CLONES bool encode_block(WireFormat format, int64_t* values, int size, uint8_t* out) {
    if (format == WireFormat::exact)
        return size == kBlock ? narrow(values, kBlock, out) : narrow(values, size, out);
    if (format == WireFormat::bf16) {
        for (int i = 0; i < size; i++) {
            const uint16_t half = to_bf16(static_cast<float>(values[i]));
            std::memcpy(out + 2 * i, &half, sizeof half);
        }
    } else {
        each_group(size, [&](int from, int count) {
            float group[kGroupSize];
            for (int i = 0; i < count; i++) group[i] = static_cast<float>(values[from + i]);
            quantise(group, count, out);
            out += group_bytes(count);
        });
        out -= quantised_bytes(size);
    }
    decode_block(wire_tag(format), out, size, values, false);
    return true;
}

void encode_wide(const int64_t* values, int size, uint8_t* out) {
    std::memcpy(out, values, static_cast<size_t>(size) * sizeof *values);
}

BW_CLONES bool decode_block(int tag, const uint8_t* in, int size, int64_t* values, bool add) {
    if (tag == 4) {
        int32_t block[kBlock];
        std::memcpy(block, in, static_cast<size_t>(size) * sizeof *block);
        put(values, size, block, add);
        return true;
    }
    if (tag == 8) {
        int64_t block[kBlock];
        std::memcpy(block, in, static_cast<size_t>(size) * sizeof *block);
        put(values, size, block, add);
        return true;
    }
    float block[kBlock];
    if (tag == 2) {
        decode_row(WireFormat::bf16, in, size, block);
    } else {
        decode_row(WireFormat::q8, in, size, block);
    }
    return put_floats(values, size, block, add);
}

size_t row_bytes(WireFormat format, int width) {
    return format == WireFormat::q8
               ? quantised_bytes(width)
               : static_cast<size_t>(width) * (format == WireFormat::bf16 ? 2 : sizeof(float));
}

bool encode_row(WireFormat format, const float* values, int width, uint8_t* out) {
    if (format == WireFormat::exact) {
        std::memcpy(out, values, sizeof(float) * static_cast<size_t>(width));
        return true;
    }
    bool finite = true;
    if (format == WireFormat::bf16) {
        for (int i = 0; i < width; i++) {
            const uint16_t half = to_bf16(values[i]);
            finite &= std::isfinite(values[i]) && std::isfinite(from_bf16(half));
            std::memcpy(out + 2 * i, &half, sizeof half);
        }
        return finite;
    }
    each_group(width, [&](int from, int count) {
        finite &= quantise(values + from, count, out);
        out += group_bytes(count);
    });
    return finite;
}

void decode_row(WireFormat format, const uint8_t* in, int width, float* values) {
    switch (format) {
        case WireFormat::exact:
            std::memcpy(values, in, sizeof(float) * static_cast<size_t>(width));
            return;
        case WireFormat::bf16:
            for (int i = 0; i < width; i++) {
                uint16_t half;
                std::memcpy(&half, in + 2 * i, sizeof half);
                values[i] = from_bf16(half);
            }
            return;
        case WireFormat::q8:
            each_group(width, [&](int from, int count) {
                dequantise(in, count, values + from);
                in += group_bytes(count);
            });
    }
}

}  // namespace bw
