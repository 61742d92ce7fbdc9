// FloatMode: IEEE arithmetic for a scope, to nearest even, whatever else runs in the process
// (libraries built with fast-math change the mode of threads).
#pragma once
#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace bw {

// Whether subnormal operands and results stay, or are zero as on some GPUs. Nothing that is
// computed may depend on it (docs/numerics.md, section 11): `flushed` is there for the tests of
// that.
enum class Subnormals { kept, flushed };

class FloatMode {
  public:
#if defined(__x86_64__)
    explicit FloatMode(Subnormals subnormals = Subnormals::kept) : saved_(_mm_getcsr()) {
        _mm_setcsr(subnormals == Subnormals::kept ? 0x1f80 : 0x9fc0);
    }
    ~FloatMode() { _mm_setcsr(saved_); }

  private:
    unsigned saved_;
#elif defined(__aarch64__)
    explicit FloatMode(Subnormals subnormals = Subnormals::kept) {
        const uint64_t mode = subnormals == Subnormals::kept ? 0 : uint64_t{1} << 24;
        asm volatile("mrs %0, fpcr" : "=r"(saved_));
        asm volatile("msr fpcr, %0" ::"r"(mode));
    }
    ~FloatMode() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

  private:
    uint64_t saved_;
#else
    explicit FloatMode(Subnormals = Subnormals::kept) {}
    ~FloatMode() {}
#endif
    FloatMode(const FloatMode&) = delete;
    FloatMode& operator=(const FloatMode&) = delete;
};

}  // namespace bw
