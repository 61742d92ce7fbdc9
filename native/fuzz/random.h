// Random numbers of an input: the same on every machine, whatever inputs came before.
#pragma once
#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace bw::fuzz {

class Random {
  public:
    Random(uint64_t seed, uint64_t input) : state_(seed) {
        state_ = bits() ^ (input * 0xd1342543de82ef95ull);
    }

    // splitmix64
    uint64_t bits() {
        uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        return z ^ (z >> 31);
    }
    // From 0 to below `count`.
    size_t below(size_t count) { return static_cast<size_t>(bits() % count); }
    int between(int low, int high) {
        return low + static_cast<int>(below(static_cast<size_t>(high - low) + 1));
    }
    bool chance(int percent) { return between(0, 99) < percent; }
    template <typename T>
    T pick(std::initializer_list<T> choices) {
        return choices.begin()[below(choices.size())];
    }
    // From -1 to 1.
    float number() { return static_cast<float>(between(-4096, 4096)) / 4096.0f; }

  private:
    uint64_t state_;
};

}  // namespace bw::fuzz
