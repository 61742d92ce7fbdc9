// What docs/numerics.md fixes beyond the kernels: its version, which is NUMERICS_VERSION of the
// Python side, and the sizes below which numbers count as zero (section 11), so that no operation
// that matters meets a subnormal.
#pragma once

namespace bw {

constexpr int kNumericsVersion = 2;

constexpr float kSmallestStored = 0x1p-40f;  // of what is stored, and of what is read from a model
constexpr float kSmallestWeight = 0x1p-37f;  // of a softmax weight

}  // namespace bw
