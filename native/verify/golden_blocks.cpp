#include "verify/golden_blocks.h"

#include <cstring>
#include <vector>

#include "kernels/pack.h"
#include "verify/golden_numbers.h"

namespace bw {

namespace {

constexpr int kOutputs = 37, kPanels = 3;

// Where a stored block has its f16 numbers; -1 where it has none.
struct Halves {
    int d, m;
};
Halves halves_of(Source source) {
    switch (source) {
        case Source::mxfp4:
            return {-1, -1};
        case Source::q4_1:
        case Source::q5_1:
        case Source::q4_k:
        case Source::q5_k:
            return {0, 2};
        case Source::q2_k:
            return {80, 82};
        case Source::q3_k:
            return {108, -1};
        case Source::q6_k:
            return {208, -1};
        default:
            return {0, -1};
    }
}

// Of either sign: from 2^-10 to 1, or subnormal ones and zeros.
uint16_t half(Numbers& numbers, bool small) {
    const uint64_t word = numbers.bits();
    const uint64_t exponent = small ? 0 : 5 + word % 10;
    const uint64_t fraction = small ? word >> 20 & 7 : word >> 20 & 1023;
    return static_cast<uint16_t>((word >> 63) << 15 | exponent << 10 | fraction);
}

// Rows of blocks of any bits.
std::vector<uint8_t> blocks(Numbers& numbers, Source source, size_t count, bool small) {
    const BlockSize size = block_size(source);
    std::vector<uint8_t> bytes(count * size.bytes);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(numbers.bits());
    const Halves places = halves_of(source);
    for (size_t i = 0; i < count; i++) {
        uint8_t* block = bytes.data() + i * size.bytes;
        if (source == Source::mxfp4)
            block[0] = static_cast<uint8_t>((small ? 80 : 110) + numbers.bits() % 16);
        for (int place : {places.d, places.m}) {
            if (place < 0) continue;
            const uint16_t value = half(numbers, small);
            std::memcpy(block + place, &value, sizeof value);
        }
    }
    return bytes;
}

std::vector<uint8_t> panels_of(Source source, const Layout& layout, size_t outputs,
                               const std::vector<uint8_t>& bytes) {
    const Format format = runs_as(source);
    const size_t panels = (outputs + kPanel - 1) / kPanel;
    std::vector<uint8_t> packed(panel_bytes(format, layout) * panels);
    clear_panels(format, layout, static_cast<int>(panels), packed.data());
    pack_rows(format, layout, packed.data(), 0, source, bytes.data(), bytes.size() / outputs,
              static_cast<int>(outputs));
    return packed;
}

}  // namespace

uint64_t golden_block_product(const Kernels& kernels, Source source, size_t rows,
                              const Layout& layout, bool small) {
    const bool on_grid = layout.unit < layout.k;
    const auto k = static_cast<size_t>(layout.k);
    const Format format = runs_as(source);
    Numbers numbers(on_grid ? 89 : 83);
    const size_t count = k / static_cast<size_t>(block_size(source).columns);
    const auto panels =
        panels_of(source, layout, kOutputs, blocks(numbers, source, kOutputs * count, small));
    auto x = numbers.many(rows * k, small ? kSmall : 6);
    for (size_t i = 0; i < 32; i++) x[i] = 0.0f;  // a group of zeros
    auto factors = numbers.many(rows, small ? kSmall : -6);
    factors[0] = 1.0f;
    ProductArgs args{};
    args.panels = panels.data();
    args.panel_stride = panel_bytes(format, layout);
    args.ahead = 4096;
    args.layout = layout;
    args.outputs = kOutputs;
    args.num_panels = kPanels;
    args.rows = static_cast<int>(rows);
    args.ldy = size_t{kPanels} * kPanel;
    args.activation_stride = activation_bytes(format, layout);
    std::vector<uint8_t> activations(args.activation_stride * rows);
    for (size_t r = 0; r < rows; r++)
        kernels.quantize(format, x.data() + r * k, layout,
                         activations.data() + r * args.activation_stride);
    args.activations = activations.data();
    if (on_grid) {
        std::vector<int64_t> grid(rows * args.ldy);
        args.grid = grid.data();
        args.factors = factors.data();
        kernels.linear_grid[static_cast<int>(format)](args);
        grid.push_back(args.bad ? 1 : 0);
        return digest(grid);
    }
    std::vector<float> y(rows * args.ldy);
    args.y = y.data();
    kernels.linear[static_cast<int>(format)](args);
    return digest(y);
}

uint64_t golden_stored_blocks() {
    Numbers numbers(97);
    std::vector<uint64_t> digests;
    for (int i = static_cast<int>(Source::q4_0); i < kSources; i++) {
        const auto source = static_cast<Source>(i);
        for (bool small : {false, true}) {
            const auto bytes = blocks(
                numbers, source, 21 * 512 / static_cast<size_t>(block_size(source).columns), small);
            digests.push_back(digest(panels_of(source, {512, 256}, 21, bytes)));
            std::vector<float> wide(512);
            widen_blocks(source, bytes.data(), 512, wide.data());
            digests.push_back(digest(wide));
        }
    }
    return digest(digests);
}

}  // namespace bw
