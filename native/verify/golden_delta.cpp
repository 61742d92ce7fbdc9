#include "verify/golden_delta.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "verify/golden_numbers.h"

namespace bw {

uint64_t golden_l2_norm(const Kernels& kernels, int reach) {
    Numbers numbers(83);
    std::vector<float> all;
    for (size_t n : {7, 64, 128, 333}) {
        auto x = numbers.many(n, reach);
        std::vector<float> y(n);
        kernels.l2_norm(x.data(), y.data(), static_cast<int>(n), 1e-6f, 0.088388346f);
        all.insert(all.end(), y.begin(), y.end());
        std::fill(x.begin(), x.end(), 0.0f);
        kernels.l2_norm(x.data(), y.data(), static_cast<int>(n), 1e-6f, 1.0f);
        all.insert(all.end(), y.begin(), y.end());
    }
    return digest(all);
}

uint64_t golden_decay(const Kernels& kernels, int reach) {
    Numbers numbers(89);
    std::vector<float> all;
    for (size_t n : {5, 16, 77}) {
        auto x = numbers.many(n, reach), rate = numbers.many(n, reach == kSmall ? reach : 1);
        const auto step = numbers.many(n, reach == kSmall ? reach : 2);
        if (n == 77) {
            x[1] = 30.0f, x[2] = -30.0f, x[3] = 1e30f, x[4] = -1e30f, x[5] = -17.5f, x[6] = 88.0f;
            rate[7] = -100.0f, rate[8] = 60.0f, rate[9] = -27.0f, x[10] = -24.9f, rate[10] = 20.0f;
        }
        std::vector<float> y(n);
        kernels.decay(x.data(), rate.data(), step.data(), y.data(), static_cast<int>(n));
        all.insert(all.end(), y.begin(), y.end());
    }
    return digest(all);
}

uint64_t golden_short_conv(const Kernels& kernels, int reach) {
    constexpr size_t kWidth = 83, kRows = 3;
    Numbers numbers(97);
    std::vector<float> all;
    for (int taps : {1, 2, 4, 5}) {
        const auto weights = numbers.many(kWidth * static_cast<size_t>(taps), reach);
        std::vector<std::vector<float>> values, made(kRows, std::vector<float>(kWidth));
        std::vector<const float*> x;
        std::vector<float*> y;
        for (int i = 0; i < static_cast<int>(kRows) + taps - 1; i++)
            values.push_back(numbers.many(kWidth, reach));
        if (taps == 2) values[1][20] = 1e30f, values[1][21] = -1e30f;
        for (const auto& row : values) x.push_back(row.data());
        for (auto& row : made) y.push_back(row.data());
        ConvArgs args{};
        args.x = x.data();
        args.y = y.data();
        args.weights = weights.data();
        args.rows = kRows;
        args.taps = taps;
        for (const auto& [from, count] : {std::pair{0, 48}, std::pair{48, 35}}) {
            args.from = from, args.count = count;
            kernels.short_conv(args);
        }
        for (const auto& row : made) all.insert(all.end(), row.begin(), row.end());
    }
    return digest(all);
}

uint64_t golden_delta_rule(const Kernels& kernels, int reach) {
    constexpr size_t kKeys = 37, kValues = 85, kStride = 96;
    Numbers numbers(101);
    std::vector<float> state(kKeys * kStride), all;
    const float keeps[] = {0.9f, 1.0f, 0.25f, 0x1p-37f, 0.97f, 0.0f, 0.6f};
    for (float keep : keeps) {
        const auto q = numbers.many(kKeys, reach),
                   k = numbers.many(kKeys, reach == kSmall ? reach : -2);
        const auto v = numbers.many(kValues, reach);
        std::vector<float> out(kValues);
        DeltaArgs args{};
        args.stride = kStride;
        args.k_dim = kKeys;
        args.k = k.data();
        args.write = 0.7f;
        args.keep = keep;
        for (size_t c : {size_t{0}, size_t{64}}) {
            args.state = state.data() + c;
            args.columns = static_cast<int>(std::min<size_t>(64, kValues - c));
            args.v = v.data() + c;
            args.q = keep == 0.25f ? nullptr : q.data();
            args.out = out.data() + c;
            kernels.delta_rule(args);
        }
        all.insert(all.end(), out.begin(), out.end());
    }
    for (size_t i = 0; i < kKeys; i++)
        all.insert(all.end(), state.begin() + static_cast<std::ptrdiff_t>(i * kStride),
                   state.begin() + static_cast<std::ptrdiff_t>(i * kStride + kValues));
    // Other widths of what is in registers together.
    for (int columns : {5, 16, 30, 48}) {
        DeltaArgs args{};
        const auto q = numbers.many(kKeys, reach), v = numbers.many(kValues, reach);
        std::vector<float> out(static_cast<size_t>(columns));
        args.state = state.data();
        args.stride = kStride;
        args.k_dim = kKeys;
        args.columns = columns;
        args.q = args.k = q.data();
        args.v = v.data();
        args.write = 0.3f, args.keep = 0.8f;
        args.out = out.data();
        kernels.delta_rule(args);
        all.insert(all.end(), out.begin(), out.end());
    }
    return digest(all);
}

}  // namespace bw
