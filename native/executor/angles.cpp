#include "executor/angles.h"

#include "core/stored.h"

namespace bw {

namespace {

// pi/2 in three parts: 33 + 33 + the rest bits, so that n times the first two is exact.
constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
constexpr double kPart1 = 0x1.921fb544p+0;
constexpr double kPart2 = 0x1.0b4611a6p-34;
constexpr double kPart3 = 0x1.3198a2e037073p-69;

// Taylor coefficients (-1)^j / (2j)! and (-1)^j / (2j+1)!, from z^1 on: |r| <= pi/4.
constexpr double kCosine[8] = {
    -1.0 / 2.0,       1.0 / 24.0,        -1.0 / 720.0,         1.0 / 40320.0,
    -1.0 / 3628800.0, 1.0 / 479001600.0, -1.0 / 87178291200.0, 1.0 / 20922789888000.0};
constexpr double kSine[8] = {
    -1.0 / 6.0,        1.0 / 120.0,        -1.0 / 5040.0,          1.0 / 362880.0,
    -1.0 / 39916800.0, 1.0 / 6227020800.0, -1.0 / 1307674368000.0, 1.0 / 355687428096000.0};

// Adding and taking away 1.5 * 2^52 rounds |x| < 2^51 half to even.
inline double round_even(double x) {
    const double shifted = x + 0x1.8p52;
    return shifted - 0x1.8p52;
}

inline void sine_cosine(double angle, double* sine, double* cosine) {
    const double n = round_even(angle * kTwoOverPi);
    const double r = ((angle - n * kPart1) - n * kPart2) - n * kPart3;
    const double z = r * r;
    double s = kSine[7], c = kCosine[7];
    for (int j = 6; j >= 0; j--) {
        s = kSine[j] + z * s;
        c = kCosine[j] + z * c;
    }
    s = r + r * (z * s);
    c = 1.0 + z * c;
    switch (static_cast<long long>(n) & 3) {
        case 0:
            *sine = s, *cosine = c;
            break;
        case 1:
            *sine = c, *cosine = -s;
            break;
        case 2:
            *sine = -s, *cosine = -c;
            break;
        default:
            *sine = -c, *cosine = s;
            break;
    }
}

}  // namespace

void rope_angles(int position, const double* inv_freq, int half, double factor, float* cosine,
                 float* sine) {
    for (int i = 0; i < half; i++) {
        double s, c;
        sine_cosine(static_cast<double>(position) * inv_freq[i], &s, &c);
        cosine[i] = static_cast<float>(c * factor);
        sine[i] = static_cast<float>(s * factor);
    }
    const auto count = static_cast<size_t>(half);
    store_values(cosine, count, cosine);
    store_values(sine, count, sine);
}

}  // namespace bw
