#include "verify/golden.h"

#include "core/float_mode.h"
#include "core/numerics.h"
#include "executor/angles.h"
#include "kernels/pack.h"
#include "verify/golden_attention.h"
#include "verify/golden_blocks.h"
#include "verify/golden_delta.h"
#include "verify/golden_experts.h"
#include "verify/golden_numbers.h"

namespace bw {

namespace {

static_assert(kNumericsVersion == 2, "the digests below belong to version 2 of the numerics");

// The stored digests, in the order of golden().
struct Expected {
    const char* what;
    uint64_t digest;
};
constexpr Expected kExpected[] = {
    {"linear f32", 0xe93f8a22d2a362ec},
    {"linear_grid f32", 0x0cb1c1af5728aec8},
    {"linear bf16", 0x16f3096fdc6a389e},
    {"linear_grid bf16", 0xe7c283fb5128a502},
    {"linear q8", 0x8e8262a2126a1471},
    {"linear_grid q8", 0xb78dd40e43f6fcf7},
    {"linear q4", 0xac778da4fe4535d4},
    {"linear_grid q4", 0x3c389e8a2993e427},
    {"linear q8, 85 rows", 0xcfc44f46c9003a83},
    {"linear_grid q8, 85 rows", 0xd8bf5bcb47adedf7},
    {"linear q4, 85 rows", 0x8385086010546b2c},
    {"linear_grid q4, 85 rows", 0xf4ac5e3262a165c0},
    {"rms_norm", 0xf1ba4f1479afa7d3},
    {"gate silu", 0xa2fac146c1f13e6b},
    {"rope", 0xb34d68c0ef53cadc},
    {"residual_add", 0x9468d60ce738b12e},
    {"exp", 0xc5e0bb26762fde77},
    {"argmax", 0xba39d974076ca28f},
    {"attention f16", 0x68a03596eb561e88},
    {"attention f32", 0xb11ad6a903e480b7},
    {"attention f16, 4 rows", 0x88fdd55db06dc24c},
    {"attention f32, 4 rows", 0xe708d0bb0071d089},
    {"content", 0xf9d2e79d496b4fc9},
    {"linear f32, small", 0xa6876f354ca1c84d},
    {"linear bf16, small", 0x42964f05ee77424e},
    {"linear q8, small", 0x8c55c6d78561255b},
    {"linear q4, small", 0xba74fb2bcdd25f23},
    {"rms_norm, small", 0x878c1fc53518a76e},
    {"gate silu, small", 0x9141cb2b25488c14},
    {"rope, small", 0xbbdc37e7b64f04af},
    {"residual_add, small", 0xa37ce1554c59ce77},
    {"attention f16, small", 0x5947b7790cdfb766},
    {"attention f32, small", 0x00571f03e1bd8fc2},
    {"attention f32, distant", 0xba8021dae89ce915},
    {"gate gelu_tanh", 0xa5ac6e20df93c392},
    {"gate clamped_silu", 0x07ef116204c428b2},
    {"rope of neighbours", 0x81d30654608664ad},
    {"gate gelu_tanh, small", 0x1b8736719b106714},
    {"gate clamped_silu, small", 0x955a491f93428c04},
    {"rope of neighbours, small", 0x2e0392d73a8aa5dd},
    {"layer_norm", 0x93060cc6cb6a6635},
    {"pointwise", 0xf63967a83a5a8018},
    {"layer_norm, small", 0x4e6ffd8aada31374},
    {"pointwise, small", 0x69ac992667d8ecb1},
    {"attention f16, bounded", 0x26c46f037153cfbf},
    {"attention f32, bounded", 0x8228a6789c14babc},
    {"linear mxfp4", 0x859382291a2425c8},
    {"linear_grid mxfp4", 0xdc2fc389e9db3998},
    {"linear mxfp4, 85 rows", 0x94c334c0fdf5a8fd},
    {"linear_grid mxfp4, 85 rows", 0x5af69b2b3d12527c},
    {"linear mxfp4, small", 0xa8ee00daa2970ea6},
    {"linear nf4", 0x176d0d56a1413a8d},
    {"linear_grid nf4", 0x7ee5a3ab8429b443},
    {"linear nf4, 85 rows", 0x981a1359c4a1d7b3},
    {"linear_grid nf4, 85 rows", 0xf41a26f4cb9483c2},
    {"linear nf4, small", 0xec3c7aadc55eaa3d},
    {"linear ulaw4", 0x9014f33318eb858b},
    {"linear_grid ulaw4", 0xf848aea2890af960},
    {"linear ulaw4, 85 rows", 0xa4f7a3131d5aa636},
    {"linear_grid ulaw4, 85 rows", 0x82668ae7fc3fbf69},
    {"linear ulaw4, small", 0xf66f81f1d0def84d},
    {"scores", 0xcd0b0fed4f3d89da},
    {"grid_bias", 0x940c302cfd2c7659},
    {"experts f32", 0x853068a582612f29},
    {"experts bf16", 0x105b7be0b579b790},
    {"experts q8", 0x39724b919f488edd},
    {"experts q4", 0x97498454fe10cabd},
    {"experts mxfp4", 0xe401d8f4caf148f0},
    {"latent f16", 0x2f72fac306a1eb1b},
    {"latent f32", 0x4cbabcbe08da99d0},
    {"scores, small", 0xf9ca149009a6bf96},
    {"grid_bias, small", 0x6790d1a1821255db},
    {"experts f32, small", 0x0dba361ff6c0ae1d},
    {"experts bf16, small", 0xe11575878d5037d6},
    {"experts q8, small", 0x03940ecb20c74bb6},
    {"experts q4, small", 0x1db6633e746df0fd},
    {"experts mxfp4, small", 0x6fa93ec3c3e39a3b},
    {"latent f16, small", 0xaef27c7b2c39f8e0},
    {"latent f32, small", 0xb869d1eeafe04a36},
    {"gate sigmoid", 0x663a30c865eb0862},
    {"l2_norm", 0xae7ce8391b620b73},
    {"decay", 0x016e461e45801451},
    {"short_conv", 0x6b05b5b4ea3ce727},
    {"delta_rule", 0x60d77e0ad5ab8ce2},
    {"gate sigmoid, small", 0x2db40a6c4b93cc5d},
    {"l2_norm, small", 0xefa8f26f0b0ae7a1},
    {"decay, small", 0xae4d5ce1b0943036},
    {"short_conv, small", 0xfb32a23bacce46bc},
    {"delta_rule, small", 0x850d32d0d2438aec},
    {"linear q4_1", 0xbd0e0f59371c3b9d},
    {"linear_grid q4_1", 0x559466e9bd03dc85},
    {"linear_grid q4_1, 69 rows", 0x0f5a7260fb24cbe6},
    {"linear q4_1, small", 0x095969fdf962d7ee},
    {"linear q5_0", 0x8aec34f29e21c9f4},
    {"linear_grid q5_0", 0x4f37e661c2b41439},
    {"linear_grid q5_0, 69 rows", 0x54f7892c718bcbb3},
    {"linear q5_0, small", 0x955e99fc47a4d951},
    {"linear q5_1", 0x557b7410cb1ddba2},
    {"linear_grid q5_1", 0x5edf2b4402d3d899},
    {"linear_grid q5_1, 69 rows", 0x4b75addbea1e3623},
    {"linear q5_1, small", 0xa5f2f552a48045e7},
    {"linear iq4_nl", 0x0753c14fa1bc688d},
    {"linear_grid iq4_nl", 0x291b205a03f4d535},
    {"linear_grid iq4_nl, 69 rows", 0x7ba51f633e1f067b},
    {"linear iq4_nl, small", 0xe081a96205809b9d},
    {"linear q2_k", 0xa6348adb364f20e3},
    {"linear_grid q2_k", 0x02ae84fbe365f504},
    {"linear_grid q2_k, 69 rows", 0x2471dfa8a06b622b},
    {"linear q2_k, small", 0xc13984d689adedf1},
    {"linear q3_k", 0xcef9e78c8276d892},
    {"linear_grid q3_k", 0x5aaafa70edf1f7b1},
    {"linear_grid q3_k, 69 rows", 0x724bfa255e890c5d},
    {"linear q3_k, small", 0xef712d4bf1cb773a},
    {"linear q4_k", 0x02ce3ec277fce460},
    {"linear_grid q4_k", 0xbf115245bf7af659},
    {"linear_grid q4_k, 69 rows", 0x955a39ba95c4133f},
    {"linear q4_k, small", 0x6900c6d4f55c21f2},
    {"linear q5_k", 0x835eb1eaee5fe8d5},
    {"linear_grid q5_k", 0x349344286e003baa},
    {"linear_grid q5_k, 69 rows", 0xf011d2d5f3a617dc},
    {"linear q5_k, small", 0xe098f99a47d84ca1},
    {"linear q6_k", 0xa0026723c47d1a50},
    {"linear_grid q6_k", 0xda82e38648bb75ff},
    {"linear_grid q6_k, 69 rows", 0xc4274c656dffe1ee},
    {"linear q6_k, small", 0xed12d855a1058859},
    {"linear iq4_xs", 0x70dd3f6391e79ace},
    {"linear_grid iq4_xs", 0xe75d5257596714b6},
    {"linear_grid iq4_xs, 69 rows", 0x4d9f9a4d72c95107},
    {"linear iq4_xs, small", 0xe0a97bf75b3cf538},
    {"stored blocks", 0xb8ee94952ace7963},
};

// A product of some rows with six panels, the last of them short.
uint64_t product(const Kernels& kernels, Format format, size_t rows, const Layout& layout,
                 bool small = false) {
    constexpr int kOutputs = 85, kPanels = 6;
    const bool on_grid = layout.unit < layout.k;
    const auto k = static_cast<size_t>(layout.k);
    Numbers numbers(on_grid ? 11 : 7);
    const std::vector<float> weights = numbers.many(kOutputs * k, small ? kSmall : 4);
    std::vector<float> x = numbers.many(rows * k, small ? kSmall : 6);
    for (int i = 0; i < 32; i++) x[static_cast<size_t>(i)] = 0.0f;  // a group of zeros
    const std::vector<float> bias = numbers.many(size_t{kPanels} * 16, small ? kSmall : 4);
    const size_t stride = panel_bytes(format, layout);
    std::vector<uint8_t> panels(stride * kPanels);
    clear_panels(format, layout, kPanels, panels.data());
    pack_rows(format, layout, panels.data(), 0, Source::f32, weights.data(), k, kOutputs);

    ProductArgs args{};
    args.panels = panels.data();
    args.panel_stride = stride;
    args.ahead = 4096;  // hints reach beyond the end; nothing is read there
    args.layout = layout;
    args.outputs = kOutputs;
    args.num_panels = kPanels;
    args.rows = static_cast<int>(rows);
    args.x = x.data();
    args.ldx = k;
    args.ldy = size_t{kPanels} * kPanel;
    std::vector<uint8_t> activations;
    if (is_quantised(format)) {
        args.activation_stride = activation_bytes(format, layout);
        activations.resize(args.activation_stride * rows);
        for (size_t r = 0; r < rows; r++)
            kernels.quantize(format, x.data() + r * k, layout,
                             activations.data() + r * args.activation_stride);
        args.activations = activations.data();
    }
    if (on_grid) {
        std::vector<int64_t> grid(rows * args.ldy);
        args.grid = grid.data();
        kernels.linear_grid[static_cast<int>(format)](args);
        grid.push_back(args.bad ? 1 : 0);
        return digest(grid);
    }
    std::vector<float> y(rows * args.ldy);
    args.y = y.data();
    args.bias = bias.data();
    kernels.linear[static_cast<int>(format)](args);
    return digest(y);
}

// 333 are five rounds of the lanes, and a short one.
using Norm = void (*)(const float*, const float*, float*, int, float);
uint64_t norm(Norm kernel, int reach) {
    Numbers numbers(13);
    std::vector<float> all;
    for (size_t n : {77, 333}) {
        const auto x = numbers.many(n, reach),
                   weight = numbers.many(n, reach == kSmall ? reach : 2);
        std::vector<float> y(n);
        kernel(x.data(), weight.data(), y.data(), static_cast<int>(n), 1e-5f);
        all.insert(all.end(), y.begin(), y.end());
    }
    return digest(all);
}

uint64_t gated_mul(const Kernels& kernels, GateFunction function, int reach) {
    Numbers numbers(17);
    auto gate = numbers.many(77, reach);
    const auto up = numbers.many(77, reach);
    for (size_t i = 0; i < 8; i++) gate[i] = -84.0f - static_cast<float>(i);  // exp(-gate): to inf
    std::vector<float> y(77);
    if (function == GateFunction::clamped_silu) gate[8] = 1e30f, gate[9] = -1e30f;
    kernels.gated_mul(function, gate.data(), up.data(), y.data(), 77, 7.0f, 1.702f);
    return digest(y);
}

uint64_t rope(const Kernels& kernels, int reach, bool interleaved = false) {
    constexpr int kHalf = 20;
    Numbers numbers(19);
    std::vector<double> frequencies(kHalf);
    for (size_t i = 0; i < kHalf; i++) frequencies[i] = 1.0 / static_cast<double>(1 + 37 * i * i);
    // Sines that are tiny, subnormal as floats, and too small for them.
    frequencies[17] = 0x1p-39, frequencies[18] = 0x1p-130, frequencies[19] = 0x1p-1040;
    std::vector<float> cosine(kHalf), sine(kHalf), all;
    for (int position : {0, 1, 63, 4095, 131071}) {
        auto head = numbers.many(2 * kHalf + 3, reach);
        // A sine below what is stored, of an element so large that it would show.
        head[18] = 0.0f, head[kHalf + 18] = 0x1p120f;
        rope_angles(position, frequencies.data(), kHalf, interleaved ? 1.25 : 1.0, cosine.data(),
                    sine.data());
        kernels.rope(head.data(), cosine.data(), sine.data(), 2 * kHalf, interleaved);
        all.insert(all.end(), head.begin(), head.end());
    }
    return digest(all);
}

uint64_t residual_add(const Kernels& kernels, int reach) {
    Numbers numbers(23);
    std::vector<int64_t> grid(77);
    for (int64_t& value : grid) {
        const uint64_t word = numbers.bits();
        value = static_cast<int64_t>(word >> (14 + word % 40));
        if (word & 1) value = -value;
        if (reach == kSmall) value >>= 48;
    }
    auto x = numbers.many(77, reach);
    const auto bias = numbers.many(77, reach == kSmall ? reach : 4);
    bool good = kernels.residual_add(grid.data(), bias.data(), x.data(), 77);
    good &= kernels.residual_add(grid.data(), nullptr, x.data(), 77);
    grid[40] = -(int64_t{1} << 51);
    std::vector<float> unused(77);
    good &= !kernels.residual_add(grid.data(), nullptr, unused.data(), 77);
    x.push_back(good ? 1.0f : 0.0f);
    return digest(x);
}

// Sums, factors and bounds of numbers in the same place, and sums of squares.
uint64_t pointwise(const Kernels& kernels, int reach) {
    Numbers numbers(61);
    const auto x = numbers.many(77, reach), other = numbers.many(77, reach);
    std::vector<float> all, y(77);
    auto keep = [&] { all.insert(all.end(), y.begin(), y.end()); };
    kernels.add_scaled(x.data(), other.data(), 0.22f, y.data(), 77), keep();
    kernels.scale(x.data(), 61.96773f, y.data(), 77), keep();
    kernels.scale_by(x.data(), 0.37f, other.data(), y.data(), 77), keep();
    for (float cap : {30.0f, 0.5f}) kernels.soft_cap(x.data(), cap, y.data(), 77), keep();
    all.push_back(kernels.sum_squares(x.data(), 77));
    return digest(all);
}

uint64_t exponential(const Kernels& kernels) {
    std::vector<float> x, y;
    // The host's, whose subnormals count (section 7). Every 1/16 over the whole range, results that
    // are subnormal and beyond it included, and numbers in between.
    const FloatMode mode;
    for (int i = -110 * 16; i <= 95 * 16; i++) x.push_back(static_cast<float>(i) * 0.0625f);
    Numbers numbers(29);
    for (int i = 0; i < 3001; i++) x.push_back(numbers.next(10));
    y.resize(x.size());
    kernels.exp(x.data(), y.data(), x.size());
    return digest(y);
}

uint64_t argmax(const Kernels& kernels) {
    Numbers numbers(31);
    auto x = numbers.many(1003, 6);
    std::vector<int32_t> found = {kernels.argmax(x.data(), 1003), kernels.argmax(x.data(), 5)};
    x[700] = x[80] = x[1001] = 1e6f;
    found.push_back(kernels.argmax(x.data(), 1003));
    x[3] = -__builtin_inff();
    found.push_back(kernels.argmax(x.data(), 1003));
    return digest(found);
}

// Rows of all lengths around a stripe, in blocks that end with one and in its midst.
uint64_t content(const Kernels& kernels) {
    Numbers numbers(43);
    std::vector<uint64_t> sums(size_t{16} * kContentLanes);
    for (size_t count : {1, 63, 64, 65, 128, 300, 333})
        for (size_t block : {count, size_t{64}, size_t{100}}) {
            std::vector<uint8_t> row(count);
            for (uint8_t& byte : row) byte = static_cast<uint8_t>(numbers.bits());
            kernels.content_row(row.data(), count, block, numbers.bits(), sums.data());
        }
    return digest(sums);
}

}  // namespace

std::vector<Golden> golden(const Kernels& kernels, Subnormals subnormals) {
    const FloatMode mode(subnormals);
    std::vector<uint64_t> digests;
    for (Format format : {Format::f32, Format::bf16, Format::q8, Format::q4}) {
        // 15 rows are 8 + 4 + 2 + 1 together; k ends in a short group, and in a short unit.
        digests.push_back(product(kernels, format, 15, {300, 300}));
        digests.push_back(product(kernels, format, 15, {300, 40}));
    }
    for (Format format : {Format::q8, Format::q4}) {
        // 85 rows are four tiles, one tile and 5; 17 groups and 20.
        digests.push_back(product(kernels, format, 85, {530, 530}));
        digests.push_back(product(kernels, format, 85, {530, 88}));
    }
    digests.push_back(norm(kernels.rms_norm, 6));
    digests.push_back(gated_mul(kernels, GateFunction::silu, 6));
    digests.push_back(rope(kernels, 4));
    digests.push_back(residual_add(kernels, 6));
    digests.push_back(exponential(kernels));
    digests.push_back(argmax(kernels));
    digests.push_back(golden_attention(kernels, true));
    digests.push_back(golden_attention(kernels, false));
    digests.push_back(golden_attention_rows(kernels, true));
    digests.push_back(golden_attention_rows(kernels, false));
    digests.push_back(content(kernels));
    for (Format format : {Format::f32, Format::bf16, Format::q8, Format::q4})
        digests.push_back(product(kernels, format, 15, {300, 300}, true));
    digests.push_back(norm(kernels.rms_norm, kSmall));
    digests.push_back(gated_mul(kernels, GateFunction::silu, kSmall));
    digests.push_back(rope(kernels, kSmall));
    digests.push_back(residual_add(kernels, kSmall));
    digests.push_back(golden_attention_small(kernels, true));
    digests.push_back(golden_attention_small(kernels, false));
    digests.push_back(golden_attention_distant(kernels));
    for (int reach : {6, kSmall}) {
        digests.push_back(gated_mul(kernels, GateFunction::gelu_tanh, reach));
        digests.push_back(gated_mul(kernels, GateFunction::clamped_silu, reach));
        digests.push_back(rope(kernels, reach == kSmall ? reach : 4, true));
    }
    for (int reach : {6, kSmall}) {
        digests.push_back(norm(kernels.layer_norm, reach));
        digests.push_back(pointwise(kernels, reach));
    }
    digests.push_back(golden_attention_bounded(kernels, true));
    digests.push_back(golden_attention_bounded(kernels, false));
    for (Format format : {Format::mxfp4, Format::nf4, Format::ulaw4}) {
        digests.push_back(product(kernels, format, 15, {300, 300}));
        digests.push_back(product(kernels, format, 15, {300, 40}));
        digests.push_back(product(kernels, format, 85, {530, 530}));
        digests.push_back(product(kernels, format, 85, {530, 88}));
        digests.push_back(product(kernels, format, 15, {300, 300}, true));
    }
    for (int reach : {4, kSmall}) {
        digests.push_back(golden_scores(kernels, reach));
        digests.push_back(golden_grid_bias(kernels, reach));
        for (Format format : {Format::f32, Format::bf16, Format::q8, Format::q4, Format::mxfp4})
            digests.push_back(golden_experts(kernels, format, reach));
        digests.push_back(golden_latent(kernels, true, reach));
        digests.push_back(golden_latent(kernels, false, reach));
    }
    for (int reach : {4, kSmall}) {
        digests.push_back(gated_mul(kernels, GateFunction::sigmoid, reach));
        digests.push_back(golden_l2_norm(kernels, reach));
        digests.push_back(golden_decay(kernels, reach));
        digests.push_back(golden_short_conv(kernels, reach));
        digests.push_back(golden_delta_rule(kernels, reach));
    }
    for (int i = static_cast<int>(Source::q4_1); i < kSources; i++) {
        const auto source = static_cast<Source>(i);
        digests.push_back(golden_block_product(kernels, source, 15, {768, 768}, false));
        digests.push_back(golden_block_product(kernels, source, 15, {768, 256}, false));
        digests.push_back(golden_block_product(kernels, source, 69, {768, 512}, false));
        digests.push_back(golden_block_product(kernels, source, 15, {768, 768}, true));
    }
    digests.push_back(golden_stored_blocks());
    std::vector<Golden> results;
    for (size_t i = 0; i < digests.size(); i++)
        results.push_back({kExpected[i].what, digests[i], kExpected[i].digest});
    return results;
}

}  // namespace bw
