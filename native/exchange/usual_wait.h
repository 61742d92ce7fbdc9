// UsualWait: how long steps keep a node waiting as a rule, by the bytes that they move. Knows no
// clocks and no peers.
#pragma once
#include <cstddef>
#include <cstdint>

namespace bw {

class UsualWait {
  public:
    // A step that ended well moved so many bytes and waited so many seconds.
    void note(uint64_t bytes, double seconds);
    // Seconds that a step which moves so many bytes may be expected to wait at most; infinite until
    // some steps have been seen. From smaller steps in proportion to the bytes, for what is more
    // than a link's latency is bytes.
    double expected(uint64_t bytes) const;

  private:
    static constexpr int kSizes = 64;  // powers of two
    struct Size {
        double seconds = 0;
        int steps = 0;
    };
    Size sizes_[kSizes];
};

}  // namespace bw
