// Monotonic time in seconds.
#pragma once
#include <chrono>

namespace bw {

inline double now() {
    using clock = std::chrono::steady_clock;
    return std::chrono::duration<double>(clock::now().time_since_epoch()).count();
}

}  // namespace bw
