#include "verify/golden.h"

#include <cstring>

#include "core/checksum.h"
#include "core/float_mode.h"
#include "core/numerics.h"
#include "executor/angles.h"
#include "kernels/pack.h"

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
    {"silu_mul", 0xa2fac146c1f13e6b},
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
    {"silu_mul, small", 0x9141cb2b25488c14},
    {"rope, small", 0xbbdc37e7b64f04af},
    {"residual_add, small", 0xa37ce1554c59ce77},
    {"attention f16, small", 0x5947b7790cdfb766},
    {"attention f32, small", 0x00571f03e1bd8fc2},
    {"attention f32, distant", 0xba8021dae89ce915},
};

constexpr int kSmall = -100;  // in the place of a reach: numbers whose products are tiny

// Numbers from integers alone (splitmix64), the same on every machine.
class Numbers {
  public:
    explicit Numbers(uint64_t seed) : state_(seed) {}

    uint64_t bits() {
        uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        return z ^ (z >> 31);
    }
    // Magnitudes from 2^-12 to 2^(reach + 1), few of them near the top, and both signs.
    float next(int reach) {
        if (reach == kSmall) return small();
        const uint64_t word = bits();
        const auto fraction = static_cast<float>(0x800000 + (word & 0x7fffff));  // exact
        const int exponent = static_cast<int>((word >> 32) % static_cast<uint64_t>(12 + reach));
        const float size = fraction * 0x1p-35f * static_cast<float>(1u << exponent);
        return (word >> 63) ? -size : size;
    }
    std::vector<float> many(size_t count, int reach) {
        std::vector<float> values(count);
        for (float& value : values) value = next(reach);
        return values;
    }

  private:
    // Down to the smallest that is stored, zeros, and every eighth about 1.
    float small() {
        const uint64_t word = bits();
        if (word % 8 == 0) return 0.0f;
        const auto fraction = static_cast<float>(0x800000 + (word >> 40 & 0x7fffff));
        const int exponent = word % 8 == 1 ? 40 : static_cast<int>((word >> 32) % 30);
        const float size = fraction * 0x1p-63f * static_cast<float>(uint64_t{1} << exponent);
        return (word >> 63) ? -size : size;
    }

    uint64_t state_;
};

template <typename T>
uint64_t digest(const std::vector<T>& values) {
    return checksum(reinterpret_cast<const uint8_t*>(values.data()), sizeof(T) * values.size());
}

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
    if (format == Format::q8 || format == Format::q4) {
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
uint64_t rms_norm(const Kernels& kernels, int reach) {
    Numbers numbers(13);
    std::vector<float> all;
    for (size_t n : {77, 333}) {
        const auto x = numbers.many(n, reach),
                   weight = numbers.many(n, reach == kSmall ? reach : 2);
        std::vector<float> y(n);
        kernels.rms_norm(x.data(), weight.data(), y.data(), static_cast<int>(n), 1e-5f);
        all.insert(all.end(), y.begin(), y.end());
    }
    return digest(all);
}

uint64_t silu_mul(const Kernels& kernels, int reach) {
    Numbers numbers(17);
    auto gate = numbers.many(77, reach);
    const auto up = numbers.many(77, reach);
    for (size_t i = 0; i < 8; i++) gate[i] = -84.0f - static_cast<float>(i);  // exp(-gate): to inf
    std::vector<float> y(77);
    kernels.silu_mul(gate.data(), up.data(), y.data(), 77);
    return digest(y);
}

uint64_t rope(const Kernels& kernels, int reach) {
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
        rope_angles(position, frequencies.data(), kHalf, cosine.data(), sine.data());
        kernels.rope(head.data(), cosine.data(), sine.data(), 2 * kHalf);
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

// A KV head of odd size with 151 positions, in three chunks.
struct KvHead {
    static constexpr int kDim = 40, kPositions = 151, kPages = 3;
    std::vector<uint8_t> cache;
    std::vector<const void*> pages;
    std::vector<float> scratch = std::vector<float>(attention_scratch(kDim));
    bool half, good = true;

    KvHead(const Kernels& kernels, bool as_half, Numbers& numbers, bool small = false)
        : half(as_half) {
        const size_t bytes = (kv_head_bytes(kDim, half) + 63) / 64 * 64;
        cache.resize(bytes * kPages);
        for (size_t p = 0; p < kPages; p++) pages.push_back(cache.data() + bytes * p);
        for (int j = 0; j < kPositions; j++) {
            const auto k = numbers.many(kDim, small ? kSmall : 2);
            const auto v = numbers.many(kDim, small ? kSmall : 4);
            uint8_t* page = cache.data() + bytes * static_cast<size_t>(j / kPage);
            good &= kernels.kv_store(page, k.data(), v.data(), j % kPage, kDim, half);
        }
    }

    // What `heads` queries of each row come to; q and the results: [rows, heads, kDim].
    std::vector<float> attend(const Kernels& kernels, const std::vector<float>& q,
                              const std::vector<int32_t>& positions, int heads, int window) {
        std::vector<float> out(q.size());
        AttentionArgs args{};
        args.q = q.data();
        args.out = out.data();
        args.q_stride = args.out_stride = static_cast<size_t>(heads) * kDim;
        args.positions = positions.data();
        args.pages = pages.data();
        args.rows = static_cast<int>(positions.size());
        args.heads = heads;
        args.window = window;
        args.dim = kDim;
        args.scale = 0.15811388f;
        args.half = half;
        args.scratch = scratch.data();
        kernels.attention(args);
        return out;
    }
};

// Eleven query heads (8 + 3, or 4 + 4 + 3 together) of one row, with and without a window.
uint64_t attention(const Kernels& kernels, bool half) {
    Numbers numbers(37);
    KvHead head(kernels, half, numbers);
    std::vector<float> all = {head.good ? 1.0f : 0.0f};
    for (int window : {0, 100}) {
        const auto q = numbers.many(size_t{11} * KvHead::kDim, 4);
        const auto out = head.attend(kernels, q, {KvHead::kPositions - 1}, 11, window);
        all.insert(all.end(), out.begin(), out.end());
    }
    return digest(all);
}

// Keys, values and queries that are small, and scores so far apart that weights are too.
uint64_t attention_small(const Kernels& kernels, bool half) {
    Numbers numbers(47);
    KvHead head(kernels, half, numbers, true);
    std::vector<float> all = {head.good ? 1.0f : 0.0f};
    for (float factor : {1.0f, 0x1p2f, 0x1p5f}) {
        auto q = numbers.many(size_t{11} * KvHead::kDim, kSmall);
        for (float& value : q) value *= factor;
        const auto out = head.attend(kernels, q, {KvHead::kPositions - 1}, 11, 0);
        all.insert(all.end(), out.begin(), out.end());
    }
    return digest(all);
}

// Numbers so large that they would show under weights that do not count: in a chunk, and in what
// the chunks before have come to.
uint64_t attention_distant(const Kernels& kernels) {
    constexpr size_t kDim = KvHead::kDim;
    Numbers numbers(53);
    KvHead head(kernels, false, numbers);
    for (size_t j = 0; j < KvHead::kPositions; j++) {
        // Scores from 0 down to -111: the first chunk, and keys of the others, far below the best.
        const size_t below = j < 64 ? 88 + j / 4 : j % 4 == 0 ? 0 : 48 + j % 64;
        std::vector<float> k(kDim), v = numbers.many(kDim, 4);
        k[0] = -static_cast<float>(below);
        for (float& value : v)
            for (size_t i = 0; i < below; i++) value *= 2.125f;
        for (float& value : v)
            if (below == 0) value *= 0x1p-28f;
        auto* page = const_cast<void*>(head.pages[j / kPage]);
        head.good &= kernels.kv_store(page, k.data(), v.data(), static_cast<int>(j % kPage),
                                      KvHead::kDim, false);
    }
    std::vector<float> q(kDim);
    q[0] = 1.0f / 0.15811388f;
    auto out = head.attend(kernels, q, {KvHead::kPositions - 1}, 1, 0);
    out.push_back(head.good ? 1.0f : 0.0f);
    return digest(out);
}

// Four rows of two heads, which see from none to all of the chunks whole, together and each alone:
// the same.
uint64_t attention_rows(const Kernels& kernels, bool half) {
    Numbers numbers(41);
    KvHead head(kernels, half, numbers);
    const std::vector<std::vector<int32_t>> steps = {
        {62, 63, 64, 65}, {126, 127, 128, 150}, {0, 40, 90, 150}};
    const size_t own = size_t{2} * KvHead::kDim;
    std::vector<float> all = {head.good ? 1.0f : 0.0f};
    for (int window : {0, 64, 70, 30})
        for (const auto& positions : steps) {
            const auto q = numbers.many(4 * own, 4);
            const auto together = head.attend(kernels, q, positions, 2, window);
            for (size_t r = 0; r < 4; r++) {
                const std::vector<float> row(q.begin() + r * own, q.begin() + (r + 1) * own);
                const auto alone = head.attend(kernels, row, {positions[r]}, 2, window);
                const bool same =
                    std::memcmp(alone.data(), together.data() + r * own, own * sizeof(float)) == 0;
                all.push_back(same ? 1.0f : 0.0f);
            }
            all.insert(all.end(), together.begin(), together.end());
        }
    return digest(all);
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
    digests.push_back(rms_norm(kernels, 6));
    digests.push_back(silu_mul(kernels, 6));
    digests.push_back(rope(kernels, 4));
    digests.push_back(residual_add(kernels, 6));
    digests.push_back(exponential(kernels));
    digests.push_back(argmax(kernels));
    digests.push_back(attention(kernels, true));
    digests.push_back(attention(kernels, false));
    digests.push_back(attention_rows(kernels, true));
    digests.push_back(attention_rows(kernels, false));
    digests.push_back(content(kernels));
    for (Format format : {Format::f32, Format::bf16, Format::q8, Format::q4})
        digests.push_back(product(kernels, format, 15, {300, 300}, true));
    digests.push_back(rms_norm(kernels, kSmall));
    digests.push_back(silu_mul(kernels, kSmall));
    digests.push_back(rope(kernels, kSmall));
    digests.push_back(residual_add(kernels, kSmall));
    digests.push_back(attention_small(kernels, true));
    digests.push_back(attention_small(kernels, false));
    digests.push_back(attention_distant(kernels));
    std::vector<Golden> results;
    for (size_t i = 0; i < digests.size(); i++)
        results.push_back({kExpected[i].what, digests[i], kExpected[i].digest});
    return results;
}

}  // namespace bw
