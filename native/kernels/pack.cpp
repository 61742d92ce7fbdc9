#include "kernels/pack.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/clones.h"
#include "core/stored.h"
#include "kernels/pack_blocks.h"
#include "kernels/pack_codes.h"

#define BW_ISA_PORTABLE
#include "simd/vec16.h"

namespace bw {

namespace {

constexpr uint16_t kHalfInfinity = 0x7c00;
using Bits [[gnu::may_alias]] = uint32_t;

// The largest magnitude of 32 elements, as bits.
BW_CLONES uint32_t largest(const float* w) {
    const auto* bits = reinterpret_cast<const Bits*>(w);
    uint32_t amax = 0;
    for (int i = 0; i < kGroup; i++) {
        const uint32_t size = bits[i] & 0x7fffffffu;
        amax = size > amax ? size : amax;
    }
    return amax;
}

BW_CLONES void round_q4(const float* w, float r, uint8_t* q) {
    int32_t whole[kGroup];
    for (int i = 0; i < kGroup; i++) {
        const int32_t v = static_cast<int32_t>(w[i] * r + 8.5f);
        whole[i] = v < 15 ? v : 15;
    }
    for (int i = 0; i < kGroup; i++) q[i] = static_cast<uint8_t>(whole[i]);
}

BW_CLONES void round_q8(const float* w, float r, uint8_t* q) {
    int32_t whole[kGroup];
    for (int i = 0; i < kGroup; i++) {
        // Half away from zero, without the double rounding of adding a float half.
        const double v = static_cast<double>(w[i] * r);
        whole[i] = static_cast<int32_t>(v + (v < 0 ? -0.5 : 0.5)) + 128;
    }
    for (int i = 0; i < kGroup; i++) q[i] = static_cast<uint8_t>(whole[i]);
}

float from_bits(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// Scale and integers of one group, padded to 32 with zeros; false where the scale overflows a half.
bool quantise_q4(const float* w, uint16_t* scale, uint8_t* q) {
    const float amax = from_bits(largest(w));
    *scale = 0;
    if (amax == 0.0f) {
        std::memset(q, 8, kGroup);
        return true;
    }
    int first = 0;
    while (std::fabs(w[first]) != amax) first++;
    const float s = w[first] / -8.0f;
    round_q4(w, 1.0f / s, q);
    *scale = portable::float_to_half(s);
    return (*scale & 0x7fff) < kHalfInfinity;
}

bool quantise_q8(const float* w, uint16_t* scale, uint8_t* q) {
    const float amax = from_bits(largest(w));
    *scale = 0;
    if (amax == 0.0f) {
        std::memset(q, 128, kGroup);
        return true;
    }
    const float s = amax / 127.0f;
    round_q8(w, 1.0f / s, q);
    *scale = portable::float_to_half(s);
    return (*scale & 0x7fff) < kHalfInfinity;
}

void put_codes(Format format, uint8_t* block, int r, uint16_t scale, const uint8_t* q) {
    if (format == Format::mxfp4)
        block[r] = static_cast<uint8_t>(scale);
    else
        std::memcpy(block + 2 * r, &scale, 2);
    put_nibbles(block + scale_bytes(format), r, q);
}

void put_q8(uint8_t* block, int r, uint16_t scale, const uint8_t* q) {
    std::memcpy(block + 2 * r, &scale, 2);
    for (int j = 0; j < 8; j++) std::memcpy(block + 32 + 64 * j + 4 * r, q + 4 * j, 4);
}

bool pack_quantised(Format format, const Layout& layout, uint8_t* panel, int r, const float* w) {
    uint8_t* block = panel;
    for (int u = 0; u < layout.units(); u++) {
        for (int left = layout.unit_size(u); left > 0; left -= kGroup) {
            const int n = left < kGroup ? left : kGroup;
            float group[kGroup] = {};
            std::memcpy(group, w, sizeof(float) * static_cast<size_t>(n));
            uint16_t scale;
            uint8_t q[kGroup];
            const bool fits = format == Format::q8   ? quantise_q8(group, &scale, q)
                              : format == Format::q4 ? quantise_q4(group, &scale, q)
                                                     : quantise_codes(format, group, &scale, q);
            if (!fits) return false;
            if (format == Format::q8)
                put_q8(block, r, scale, q);
            else
                put_codes(format, block, r, scale, q);
            block += block_bytes(format);
            w += n;
        }
    }
    return true;
}

// False where a weight rounds to infinity.
bool pack_floats(Format format, const Layout& layout, uint8_t* panel, int r, const float* w) {
    if (format == Format::f32) {
        auto* out = reinterpret_cast<float*>(panel);
        for (int k = 0; k < layout.k; k++) out[static_cast<size_t>(k) * kPanel + r] = w[k];
        return true;
    }
    auto* out = reinterpret_cast<uint16_t*>(panel);
    for (int k = 0; k < layout.k; k++) {
        uint32_t bits;
        std::memcpy(&bits, w + k, sizeof bits);
        bits += 0x7fff + ((bits >> 16) & 1);
        if ((bits & 0x7f800000u) == 0x7f800000u) return false;
        out[static_cast<size_t>(k) * kPanel + r] = static_cast<uint16_t>(bits >> 16);
    }
    return true;
}

// Rows of blocks that stay as they are, panel by panel; `stride` is in bytes.
std::string pack_stored(Format format, const Layout& layout, uint8_t* panels, int first_output,
                        Source source, const uint8_t* values, size_t stride, int rows,
                        ContentSums* sums) {
    const size_t bytes = panel_bytes(format, layout);
    for (int i = 0; i < rows;) {
        const int output = first_output + i, r = output % kPanel;
        const int count = std::min(rows - i, kPanel - r);
        const uint8_t* row = values + stride * static_cast<size_t>(i);
        if (sums)
            for (int n = 0; n < count; n++)
                sums->add(static_cast<size_t>(i + n), row + stride * static_cast<size_t>(n));
        uint8_t* panel = panels + bytes * static_cast<size_t>(output / kPanel);
        const char* wrong = pack_blocks(layout, panel, r, count, source, row, stride);
        if (wrong) return wrong;
        i += count;
    }
    return "";
}

}  // namespace

BW_CLONES bool all_finite(const float* x, size_t count) {
    const auto* bits = reinterpret_cast<const Bits*>(x);
    uint32_t worst = 0;
    for (size_t i = 0; i < count; i++) {
        const uint32_t size = bits[i] & 0x7fffffffu;
        worst = size > worst ? size : worst;
    }
    return worst < 0x7f800000u;
}

void widen(Source source, const void* values, size_t offset, int count, float* out) {
    switch (source) {
        case Source::f32:
            std::memcpy(out, static_cast<const float*>(values) + offset,
                        sizeof(float) * static_cast<size_t>(count));
            return;
        case Source::bf16: {
            const uint16_t* in = static_cast<const uint16_t*>(values) + offset;
            for (int i = 0; i < count; i++) {
                uint32_t bits = static_cast<uint32_t>(in[i]) << 16;
                std::memcpy(out + i, &bits, sizeof bits);
            }
            return;
        }
        case Source::f16: {
            const uint16_t* in = static_cast<const uint16_t*>(values) + offset;
            for (int i = 0; i < count; i++) out[i] = portable::half_to_float(in[i]);
            return;
        }
        default:  // blocks
            return;
    }
}

void widen_blocks(Source source, const uint8_t* row, int count, float* out) {
    const BlockSize size = block_size(source);
    for (int at = 0; at < count; at += size.columns, row += size.bytes)
        widen_block(source, row, out + at);
}

void clear_panels(Format format, const Layout& layout, int num_panels, uint8_t* panels) {
    const size_t bytes = panel_bytes(format, layout) * static_cast<size_t>(num_panels);
    if (!is_quantised(format) || keeps_blocks(format)) {
        std::memset(panels, 0, bytes);
        return;
    }
    const size_t block = block_bytes(format), scales = scale_bytes(format);
    const int zero = format == Format::q8 ? 0x80 : zero_code(format) * 0x11;
    for (size_t at = 0; at < bytes; at += block) {
        std::memset(panels + at, 0, scales);
        std::memset(panels + at + scales, zero, block - scales);
    }
}

std::string pack_rows(Format format, const Layout& layout, uint8_t* panels, int first_output,
                      Source source, const void* values, size_t stride, int rows,
                      ContentSums* sums) {
    if (holds_as_stored(format, layout, source))
        return pack_stored(format, layout, panels, first_output, source,
                           static_cast<const uint8_t*>(values), stride, rows, sums);
    if (keeps_blocks(format))
        return "cannot be made into a format that keeps blocks as a GGUF file stores them; choose "
               "another format for it";
    std::vector<float> w(static_cast<size_t>(layout.k));
    const size_t bytes = panel_bytes(format, layout), row_bytes = stride * stored_bytes(source);
    for (int i = 0; i < rows; i++) {
        const auto index = static_cast<size_t>(i);
        if (sums) sums->add(index, static_cast<const uint8_t*>(values) + index * row_bytes);
        const int output = first_output + i;
        uint8_t* panel = panels + bytes * static_cast<size_t>(output / kPanel);
        const uint8_t* row = static_cast<const uint8_t*>(values) + index * row_bytes;
        if (stores_blocks(source))
            widen_blocks(source, row, layout.k, w.data());
        else
            widen(source, values, index * stride, layout.k, w.data());
        if (!all_finite(w.data(), w.size())) return "holds a NaN or an infinity";
        store_values(w.data(), w.size(), w.data());
        const bool plain = format == Format::f32 || format == Format::bf16;
        const bool fits = plain ? pack_floats(format, layout, panel, output % kPanel, w.data())
                                : pack_quantised(format, layout, panel, output % kPanel, w.data());
        if (!fits)
            return plain ? "holds weights too large for bf16"
                         : "holds weights too large for the format's 16-bit scales";
    }
    return "";
}

}  // namespace bw
