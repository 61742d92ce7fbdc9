#include "exchange/usual_wait.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace bw {

namespace {

constexpr int kKnown = 4;  // steps of a size, until it says something
// What one step more changes: a single outage hardly shows, while a link that has become slow for
// good, but not so slow that it is given up, is known as that after some dozen steps.
constexpr double kMostGrowth = 0.1, kFall = 0.5;
constexpr double kWithin = 2;  // the largest of a size over its smallest

int size_of(uint64_t bytes) {
    int size = 0;
    while (bytes >>= 1) size++;
    return size;
}

}  // namespace

void UsualWait::note(uint64_t bytes, double seconds) {
    Size& size = sizes_[size_of(bytes)];
    if (size.steps++ == 0) {
        size.seconds = seconds;
        return;
    }
    const double more = seconds - size.seconds;
    size.seconds += more > 0 ? std::min(more, kMostGrowth * size.seconds) : kFall * more;
    size.steps = std::min(size.steps, kKnown);
}

double UsualWait::expected(uint64_t bytes) const {
    const int size = size_of(bytes);
    for (int known = size; known >= 0; known--)
        if (sizes_[known].steps >= kKnown)
            return std::ldexp(kWithin * sizes_[known].seconds, size - known);
    for (int known = size + 1; known < kSizes; known++)
        if (sizes_[known].steps >= kKnown) return sizes_[known].seconds;
    return std::numeric_limits<double>::infinity();
}

}  // namespace bw
