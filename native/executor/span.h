// A member's part of some things to do.
#pragma once
#include <algorithm>
#include <cstdint>

namespace bw {

struct Span {
    int from, to;
};

// Contiguous and as even as it goes; the parts of all members cover [0, count).
inline Span part(int count, int member, int members) {
    auto cut = [&](int m) { return static_cast<int>(static_cast<int64_t>(count) * m / members); };
    return {cut(member), cut(member + 1)};
}

}  // namespace bw
