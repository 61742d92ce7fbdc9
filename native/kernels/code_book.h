// The 4-bit formats: what each of their 16 codes means, as a small integer (docs/formats.md).
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"

namespace bw {

// Kernels multiply by a code's place: its value plus kZeroPoint, never negative, kMost at most. So
// they need no signs, and kMost says how many products fit an int16. kScaleBytes are those of a
// group's 16 scales.
struct Q4Codes {
    static constexpr Format kFormat = Format::q4;
    static constexpr bool kInOrder = true;  // a code is its own place: no table is needed
    static constexpr int kZeroPoint = 8, kMost = 15;
    static constexpr size_t kScaleBytes = 32;
    static constexpr int8_t kValues[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
};

// Twice the numbers of E2M1, by their code: a sign and three bits. Code 8 is -0.
struct Mxfp4Codes {
    static constexpr Format kFormat = Format::mxfp4;
    static constexpr bool kInOrder = false;
    static constexpr int kZeroPoint = 12, kMost = 24;
    static constexpr size_t kScaleBytes = 16;
    static constexpr int8_t kValues[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
};

// The places of both end at 126: the products of a pair of k with int8 activations fit an int16.

// 63 times NormalFloat4, rounded.
struct Nf4Codes {
    static constexpr Format kFormat = Format::nf4;
    static constexpr bool kInOrder = false;
    static constexpr int kZeroPoint = 63, kMost = 126;
    static constexpr size_t kScaleBytes = 32;
    static constexpr int8_t kValues[16] = {-63, -44, -33, -25, -18, -12, -6, 0,
                                           5,   10,  16,  21,  28,  35,  46, 63};
};

// 63 * (2^(|i| / 8) - 1) with the sign of i = code - 8, rounded.
struct Ulaw4Codes {
    static constexpr Format kFormat = Format::ulaw4;
    static constexpr bool kInOrder = false;
    static constexpr int kZeroPoint = 63, kMost = 126;
    static constexpr size_t kScaleBytes = 32;
    static constexpr int8_t kValues[16] = {-63, -53, -43, -34, -26, -19, -12, -6,
                                           0,   6,   12,  19,  26,  34,  43,  53};
};

// IQ4_NL's and IQ4_XS's.
constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113};

// The places of the codes.
template <class Codes>
struct CodePlaces {
    uint8_t of[16] = {};
    constexpr CodePlaces() {
        for (int i = 0; i < 16; i++)
            of[i] = static_cast<uint8_t>(Codes::kValues[i] + Codes::kZeroPoint);
    }
};
template <class Codes>
inline constexpr CodePlaces<Codes> kPlaces{};
struct Iq4Codes {
    static constexpr int kZeroPoint = 127;
    static constexpr const int8_t* kValues = kIq4Values;
};
inline constexpr CodePlaces<Iq4Codes> kIq4Places{};

// What is added to the weights of a format that kernels read as unsigned, other than q8's.
constexpr BW_INLINE int zero_point(Format format) {
    if (keeps_blocks(format)) return block_shape(format).zero_point;
    switch (format) {
        case Format::mxfp4:
            return Mxfp4Codes::kZeroPoint;
        case Format::nf4:
            return Nf4Codes::kZeroPoint;
        case Format::ulaw4:
            return Ulaw4Codes::kZeroPoint;
        default:
            return Q4Codes::kZeroPoint;
    }
}

}  // namespace bw
