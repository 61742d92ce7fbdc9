#include "verify/golden_experts.h"

#include <cstring>
#include <vector>

#include "kernels/pack.h"
#include "verify/golden_numbers.h"

namespace bw {

uint64_t golden_scores(const Kernels& kernels, int reach) {
    Numbers numbers(67);
    std::vector<float> all;
    for (size_t n : {1, 7, 64, 77, 333}) {
        auto x = numbers.many(n, reach);
        if (n == 77) x[3] = 88.0f, x[4] = -88.5f, x[5] = 1e30f, x[6] = -1e30f;
        std::vector<float> y(n);
        kernels.softmax(x.data(), y.data(), static_cast<int>(n));
        all.insert(all.end(), y.begin(), y.end());
        kernels.sigmoid(x.data(), y.data(), static_cast<int>(n));
        all.insert(all.end(), y.begin(), y.end());
    }
    return digest(all);
}

uint64_t golden_grid_bias(const Kernels& kernels, int reach) {
    Numbers numbers(71);
    std::vector<int64_t> all;
    for (int n : {5, 16, 77}) {
        const auto count = static_cast<size_t>(padded(n));
        auto bias = numbers.many(count, reach);
        std::vector<int64_t> grid(count);
        for (int64_t& value : grid) value = static_cast<int64_t>(numbers.bits() >> 20);
        for (float factor : {1.0f, 0.37f, 0x1p-39f})
            all.push_back(kernels.grid_bias(bias.data(), factor, grid.data(), n));
        all.insert(all.end(), grid.begin(), grid.begin() + n);
        bias[static_cast<size_t>(n) - 1] = 0x1p27f;
        all.push_back(kernels.grid_bias(bias.data(), 1.0f, grid.data(), n));
    }
    return digest(all);
}

uint64_t golden_experts(const Kernels& kernels, Format format, int reach) {
    // k ends in a short group and in a short unit; the last panel is short.
    constexpr int kOutputs = 85, kPanels = 6, kRows = 31;
    constexpr Layout kLayout{300, 64};
    const auto k = static_cast<size_t>(kLayout.k);
    Numbers numbers(73);
    const size_t wide = size_t{kPanels} * kPanel, stride = panel_bytes(format, kLayout);
    std::vector<int64_t> grid(wide * kRows);
    for (int64_t& value : grid) value = static_cast<int64_t>(numbers.bits() >> 20);
    int64_t bad = 0;
    for (size_t rows : {15, 31}) {
        const auto weights = numbers.many(kOutputs * k, reach);
        const auto x = numbers.many(rows * k, reach == kSmall ? reach : 6);
        auto factors = numbers.many(rows, reach == kSmall ? reach : -6);
        factors[0] = 0.0f, factors[1] = 1.0f;
        // Some sums beyond int32, whose rows take the way of int64 lanes.
        if (rows == 31) factors[2] = 0x1p14f;
        std::vector<size_t> places;
        for (size_t r = 0; r < rows; r++) places.push_back((r * 7 + 3) % kRows * wide);
        std::vector<uint8_t> panels(stride * kPanels);
        clear_panels(format, kLayout, kPanels, panels.data());
        pack_rows(format, kLayout, panels.data(), 0, Source::f32, weights.data(), k, kOutputs);
        ProductArgs args{};
        args.panels = panels.data();
        args.panel_stride = stride;
        args.layout = kLayout;
        args.outputs = kOutputs;
        args.num_panels = kPanels;
        args.rows = static_cast<int>(rows);
        args.x = x.data();
        args.ldx = k;
        args.places = places.data();
        args.factors = factors.data();
        args.add = true;
        args.grid = grid.data();
        std::vector<uint8_t> activations;
        if (is_quantised(format)) {
            args.activation_stride = activation_bytes(format, kLayout);
            activations.resize(args.activation_stride * rows);
            for (size_t r = 0; r < rows; r++)
                kernels.quantize(format, x.data() + r * k, kLayout,
                                 activations.data() + r * args.activation_stride);
            args.activations = activations.data();
        }
        kernels.linear_grid[static_cast<int>(format)](args);
        bad += args.bad ? 1 : 0;
    }
    grid.push_back(bad);
    return digest(grid);
}

uint64_t golden_latent(const Kernels& kernels, bool half, int reach) {
    constexpr int kKeys = 44, kValues = 36, kPositions = 151, kPages = 3;
    Numbers numbers(79);
    const size_t bytes = (latent_page_bytes(kKeys, half) + 63) / 64 * 64;
    std::vector<uint8_t> cache(bytes * kPages);
    std::vector<const void*> pages;
    for (size_t p = 0; p < kPages; p++) pages.push_back(cache.data() + bytes * p);
    bool good = true;
    for (int j = 0; j < kPositions; j++) {
        const auto key = numbers.many(kKeys, reach == kSmall ? reach : 2);
        uint8_t* page = cache.data() + bytes * static_cast<size_t>(j / kPage);
        good &= kernels.latent_store(page, key.data(), j % kPage, kKeys, half);
    }
    std::vector<float> scratch(latent_scratch(kKeys, kValues)), all = {good ? 1.0f : 0.0f};
    auto attend = [&](const std::vector<int32_t>& positions, size_t heads) {
        const auto q = numbers.many(positions.size() * heads * kKeys, reach);
        std::vector<float> out(positions.size() * heads * kValues);
        LatentArgs args{};
        args.q = q.data();
        args.q_stride = heads * kKeys;
        args.positions = positions.data();
        args.pages = pages.data();
        args.rows = static_cast<int>(positions.size());
        args.heads = static_cast<int>(heads);
        args.k_dim = kKeys;
        args.v_dim = kValues;
        args.scale = 0.15811388f;
        args.half = half;
        args.out = out.data();
        args.out_stride = heads * kValues;
        args.scratch = scratch.data();
        kernels.latent_attention(args);
        all.insert(all.end(), out.begin(), out.end());
    };
    for (int32_t last : {0, 63, 64, kPositions - 1}) attend({last}, 13);
    attend({62, 63, 64, 65}, 5);
    attend({0, 40, 90, 150}, 6);
    for (size_t heads : {1, 2, 3, 7}) attend({126, 150}, heads);
    const std::vector<float> beyond(kKeys, 1e30f);
    std::vector<uint8_t> unused(bytes);
    all.push_back(kernels.latent_store(unused.data(), beyond.data(), 0, kKeys, half) ? 1.0f : 0.0f);
    return digest(all);
}

}  // namespace bw
