// Matrices of random numbers, each in memory of its own whose ends the sanitizer watches.
#pragma once
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <vector>

#include "executor/program.h"
#include "fuzz/random.h"

namespace bw::fuzz {

class Weights {
  public:
    // Their panels live as long as this.
    Matrix add_random(Random& random, Format format, int inputs, int unit, int outputs);
    // Of floats, by output and input.
    Matrix add_floats(int inputs, int unit, int outputs,
                      const std::function<float(int output, int input)>& value);

  private:
    Matrix add(Format format, int inputs, int unit, int outputs);

    struct Free {
        void operator()(uint8_t* memory) const { std::free(memory); }
    };
    std::vector<std::unique_ptr<uint8_t, Free>> memory_;
};

}  // namespace bw::fuzz
