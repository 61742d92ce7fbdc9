#include "kernels/pack_codes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/clones.h"
#include "kernels/code_book.h"

#define BW_ISA_PORTABLE
#include "simd/vec16.h"

namespace bw {

namespace {

constexpr int kBounds = 15;
constexpr uint16_t kHalfInfinity = 0x7c00;
constexpr int kExponentBias = 127;

// A book in ascending order of its values. A number has the rank of the nearest one: that of the
// bounds below it. A number halfway between two has the even code of theirs.
struct Ranks {
    float smallest = 0;
    float bounds[kBounds];  // infinite behind the last rank
    float steps[kBounds];   // from a rank's value to the next one's
    uint8_t codes[kBounds + 1] = {};
    uint8_t zero = 0;

    explicit Ranks(const int8_t* values) {
        int order[16], count = 0;
        for (int code = 0; code < 16; code++) {
            const bool again = std::any_of(
                order, order + count, [&](int other) { return values[other] == values[code]; });
            if (!again) order[count++] = code;
        }
        std::sort(order, order + count, [&](int a, int b) { return values[a] < values[b]; });
        std::fill(bounds, bounds + kBounds, std::numeric_limits<float>::infinity());
        std::fill(steps, steps + kBounds, 0.0f);
        smallest = values[order[0]];
        for (int rank = 0; rank < count; rank++) {
            const int code = order[rank];
            codes[rank] = static_cast<uint8_t>(code);
            if (values[code] == 0) zero = codes[rank];
            if (rank == 0) continue;
            const int below = order[rank - 1];
            const float middle = 0.5f * static_cast<float>(values[below] + values[code]);
            // A number is above a bound or is not; an even code takes the middle itself as well.
            bounds[rank - 1] = code % 2 == 0 ? std::nextafter(middle, smallest - 1) : middle;
            steps[rank - 1] = static_cast<float>(values[code] - values[below]);
        }
    }
};

const Ranks& ranks_of(Format format) {
    static const Ranks mxfp4(Mxfp4Codes::kValues), nf4(Nf4Codes::kValues),
        ulaw4(Ulaw4Codes::kValues);
    return format == Format::mxfp4 ? mxfp4 : format == Format::nf4 ? nf4 : ulaw4;
}

// The squares of what is lost with scale `d`, whose inverse is `r`, added up in eight lanes.
BW_CLONES double loss(const Ranks& ranks, const float* w, float d, float r) {
    float values[kGroup];
    for (int i = 0; i < kGroup; i++) {
        const float x = w[i] * r;
        float value = ranks.smallest;
        for (int j = 0; j < kBounds; j++) value += x > ranks.bounds[j] ? ranks.steps[j] : 0.0f;
        values[i] = value;
    }
    double lanes[8] = {};
    for (int i = 0; i < kGroup; i += 8)
        for (int l = 0; l < 8; l++) {
            const double lost =
                static_cast<double>(w[i + l]) - static_cast<double>(d * values[i + l]);
            lanes[l] += lost * lost;
        }
    for (int half = 4; half > 0; half /= 2)
        for (int l = 0; l < half; l++) lanes[l] += lanes[l + half];
    return lanes[0];
}

BW_CLONES void find_codes(const Ranks& ranks, const float* w, float r, uint8_t* codes) {
    int32_t found[kGroup];
    for (int i = 0; i < kGroup; i++) {
        const float x = w[i] * r;
        int32_t rank = 0;
        for (int j = 0; j < kBounds; j++) rank += x > ranks.bounds[j] ? 1 : 0;
        found[i] = rank;
    }
    for (int i = 0; i < kGroup; i++) codes[i] = ranks.codes[found[i]];
}

float from_bits(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

struct Scale {
    uint16_t stored;
    float value;
};

Scale half_scale(float s) {
    uint16_t stored = portable::float_to_half(s);
    if ((stored & 0x7fff) == 0) stored = 0;
    return {stored, portable::half_to_float(stored)};
}

Scale power_of_two(int biased) {
    return {static_cast<uint16_t>(biased), from_bits(static_cast<uint32_t>(biased) << 23)};
}

// The scales to choose from: the largest weight's own, and some that cut it or spare it.
int candidates(Format format, const float* w, float amax, Scale* scales) {
    if (format == Format::mxfp4) {
        int exponent;
        std::frexp(amax, &exponent);  // amax is below 2^exponent, and at least half of it
        // The largest weight becomes 8 to 16 of twice E2M1's numbers, or 4 to 8.
        scales[0] = power_of_two(exponent - 4 + kExponentBias);
        scales[1] = power_of_two(exponent - 3 + kExponentBias);
        return 2;
    }
    float s = amax / 63.0f;
    if (format == Format::ulaw4) {
        int first = 0;
        while (std::fabs(w[first]) != amax) first++;
        s = w[first] / -63.0f;
    }
    scales[0] = half_scale(s);
    scales[1] = half_scale(s * 0.9375f);
    scales[2] = half_scale(s * 0.875f);
    return 3;
}

}  // namespace

uint8_t zero_code(Format format) { return format == Format::q4 ? 8 : ranks_of(format).zero; }

bool quantise_codes(Format format, const float* w, uint16_t* scale, uint8_t* codes) {
    const Ranks& ranks = ranks_of(format);
    float amax = 0;
    for (int i = 0; i < kGroup; i++) amax = std::max(amax, std::fabs(w[i]));
    *scale = 0;
    if (amax == 0.0f) {
        std::memset(codes, ranks.zero, kGroup);
        return true;
    }
    Scale scales[3];
    const int count = candidates(format, w, amax, scales);
    if (format != Format::mxfp4 && (scales[0].stored & 0x7fff) >= kHalfInfinity) return false;
    double least = 0;
    float best = 0;  // the inverse of the best scale
    for (int i = 0; i < count; i++) {
        const float inverse = scales[i].value == 0.0f ? 0.0f : 1.0f / scales[i].value;
        const double lost = loss(ranks, w, scales[i].value, inverse);
        if (i > 0 && lost >= least) continue;
        least = lost;
        best = inverse;
        *scale = scales[i].stored;
    }
    find_codes(ranks, w, best, codes);
    return true;
}

}  // namespace bw
