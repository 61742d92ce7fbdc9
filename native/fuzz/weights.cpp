#include "fuzz/weights.h"

#include <cstring>

namespace bw::fuzz {

namespace {

// A block of a quantised format: 16 scales, as halves or exponents, then integers.
// GGUF's have minima behind the scales, as halves too.
void fill_block(Random& random, Format format, uint8_t* block) {
    for (size_t i = 0; i < block_bytes(format); i++) block[i] = static_cast<uint8_t>(random.bits());
    const bool minima = keeps_blocks(format) && block_shape(format).minima;
    for (size_t i = 0; i < (minima ? 2 * kPanel : kPanel); i++) {
        if (format == Format::mxfp4) {
            block[i] = static_cast<uint8_t>(random.between(90, 121));
            continue;
        }
        const auto scale =
            static_cast<uint16_t>(random.between(0, 0x1800) | (random.chance(50) ? 0x8000 : 0));
        std::memcpy(block + 2 * i, &scale, sizeof scale);
    }
}

}  // namespace

Matrix Weights::add(Format format, int inputs, int unit, int outputs) {
    Matrix matrix;
    matrix.format = format;
    matrix.layout = {inputs, unit};
    matrix.outputs = outputs;
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, matrix.bytes()) != 0) throw std::bad_alloc();
    memory_.emplace_back(static_cast<uint8_t*>(memory));
    matrix.panels = memory_.back().get();
    return matrix;
}

Matrix Weights::add_floats(int inputs, int unit, int outputs,
                           const std::function<float(int, int)>& value) {
    const Matrix matrix = add(Format::f32, inputs, unit, outputs);
    auto* panels = reinterpret_cast<float*>(memory_.back().get());
    for (int panel = 0; panel < matrix.num_panels(); panel++)
        for (int input = 0; input < inputs; input++)
            for (int lane = 0; lane < kPanel; lane++) {
                const int output = panel * kPanel + lane;
                *panels++ = output < outputs ? value(output, input) : 0.0f;
            }
    return matrix;
}

Matrix Weights::add_random(Random& random, Format format, int inputs, int unit, int outputs) {
    const Matrix matrix = add(format, inputs, unit, outputs);
    uint8_t* panels = memory_.back().get();
    const size_t bytes = matrix.bytes();
    if (is_quantised(format)) {
        const size_t block = block_bytes(format);
        for (size_t at = 0; at < bytes; at += block) fill_block(random, format, panels + at);
        return matrix;
    }
    for (size_t at = 0; at < bytes; at += format == Format::f32 ? 4 : 2) {
        const float weight = random.number() / 8;
        uint8_t word[4];
        std::memcpy(word, &weight, sizeof word);
        // The upper half of a float is a bf16.
        std::memcpy(panels + at, format == Format::f32 ? word : word + 2,
                    format == Format::f32 ? 4 : 2);
    }
    return matrix;
}

}  // namespace bw::fuzz
