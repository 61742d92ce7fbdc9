#include "kernels/pack.h"

#include <cmath>
#include <cstring>
#include <vector>

#define BW_ISA_PORTABLE
#include "simd/vec16.h"

namespace bw {

namespace {

constexpr float kSmallest = 0x1p-100f;
constexpr uint16_t kHalfInfinity = 0x7c00;

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
    }
}

bool all_finite(const float* x, int count) {
    uint32_t worst = 0;
    for (int i = 0; i < count; i++) {
        uint32_t bits;
        std::memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff;
        worst = bits > worst ? bits : worst;
    }
    return worst < 0x7f800000u;
}

// Scale and integers of one group; false where the scale overflows a half.
bool quantise_q4(const float* w, int n, uint16_t* scale, uint8_t* q) {
    float amax = 0.0f, top = 0.0f;
    for (int i = 0; i < n; i++)
        if (std::fabs(w[i]) > amax) {
            amax = std::fabs(w[i]);
            top = w[i];
        }
    for (int i = 0; i < kGroup; i++) q[i] = 8;
    *scale = 0;
    if (amax < kSmallest) return true;
    const float s = top / -8.0f, r = 1.0f / s;
    for (int i = 0; i < n; i++) {
        const int v = static_cast<int>(w[i] * r + 8.5f);
        q[i] = static_cast<uint8_t>(v < 15 ? v : 15);
    }
    *scale = portable::float_to_half(s);
    return (*scale & 0x7fff) < kHalfInfinity;
}

bool quantise_q8(const float* w, int n, uint16_t* scale, uint8_t* q) {
    float amax = 0.0f;
    for (int i = 0; i < n; i++) amax = std::fabs(w[i]) > amax ? std::fabs(w[i]) : amax;
    for (int i = 0; i < kGroup; i++) q[i] = 128;
    *scale = 0;
    if (amax < kSmallest) return true;
    const float s = amax / 127.0f, r = 1.0f / s;
    for (int i = 0; i < n; i++) {
        // Half away from zero, without the double rounding of adding a float half.
        const double v = static_cast<double>(w[i] * r);
        q[i] = static_cast<uint8_t>(static_cast<int>(v + (v < 0 ? -0.5 : 0.5)) + 128);
    }
    *scale = portable::float_to_half(s);
    return (*scale & 0x7fff) < kHalfInfinity;
}

void put_q4(uint8_t* block, int r, uint16_t scale, const uint8_t* q) {
    std::memcpy(block + 2 * r, &scale, 2);
    for (int j = 0; j < 4; j++)
        for (int b = 0; b < 4; b++)
            block[32 + 64 * j + 4 * r + b] =
                static_cast<uint8_t>(q[4 * j + b] | (q[16 + 4 * j + b] << 4));
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
            uint16_t scale;
            uint8_t q[kGroup];
            if (format == Format::q4) {
                if (!quantise_q4(w, n, &scale, q)) return false;
                put_q4(block, r, scale, q);
                block += 288;
            } else {
                if (!quantise_q8(w, n, &scale, q)) return false;
                put_q8(block, r, scale, q);
                block += 544;
            }
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

}  // namespace

void clear_panels(Format format, const Layout& layout, int num_panels, uint8_t* panels) {
    const size_t bytes = panel_bytes(format, layout) * static_cast<size_t>(num_panels);
    if (format == Format::f32 || format == Format::bf16) {
        std::memset(panels, 0, bytes);
        return;
    }
    const size_t block = format == Format::q4 ? 288 : 544;
    for (size_t at = 0; at < bytes; at += block) {
        std::memset(panels + at, 0, 32);
        std::memset(panels + at + 32, format == Format::q4 ? 0x88 : 0x80, block - 32);
    }
}

std::string pack_rows(Format format, const Layout& layout, uint8_t* panels, int first_output,
                      Source source, const void* values, size_t stride, int rows) {
    std::vector<float> w(static_cast<size_t>(layout.k));
    const size_t bytes = panel_bytes(format, layout);
    for (int i = 0; i < rows; i++) {
        widen(source, values, static_cast<size_t>(i) * stride, layout.k, w.data());
        if (!all_finite(w.data(), layout.k)) return "holds a NaN or an infinity";
        const int output = first_output + i;
        uint8_t* panel = panels + bytes * static_cast<size_t>(output / kPanel);
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
