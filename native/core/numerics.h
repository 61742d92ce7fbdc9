// The version of docs/numerics.md that this code follows: NUMERICS_VERSION of the Python side.
#pragma once

namespace bw {

constexpr int kNumericsVersion = 1;

}  // namespace bw
