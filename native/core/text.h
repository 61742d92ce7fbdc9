// Words from outside, made safe for sentences and terminals.
#pragma once
#include <algorithm>
#include <cstddef>
#include <string>

namespace bw {

// The first `most` bytes as printable ASCII.
inline std::string printable(const void* text, size_t bytes, size_t most) {
    std::string words(static_cast<const char*>(text), std::min(bytes, most));
    for (char& c : words)
        if (c < 32 || c > 126) c = '?';
    return words;
}

}  // namespace bw
