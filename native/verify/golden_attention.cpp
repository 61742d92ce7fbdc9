#include "verify/golden_attention.h"

#include <cstring>
#include <vector>

#include "verify/golden_numbers.h"

namespace bw {

namespace {

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
                              const std::vector<int32_t>& positions, int heads, int window,
                              float cap = 0.0f, const float* sinks = nullptr) {
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
        args.cap = cap;
        args.sinks = sinks;
        args.scratch = scratch.data();
        kernels.attention(args);
        return out;
    }
};

}  // namespace

uint64_t golden_attention(const Kernels& kernels, bool half) {
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

uint64_t golden_attention_bounded(const Kernels& kernels, bool half) {
    Numbers numbers(59);
    KvHead head(kernels, half, numbers);
    std::vector<float> all = {head.good ? 1.0f : 0.0f};
    const auto sinks = numbers.many(11, 4);
    const std::vector<int32_t> rows = {60, 64, 128, 150};
    for (int window : {0, 70})
        for (float cap : {0.0f, 5.0f}) {
            auto q = numbers.many(size_t{11} * KvHead::kDim, 3);
            auto out =
                head.attend(kernels, q, {KvHead::kPositions - 1}, 11, window, cap, sinks.data());
            all.insert(all.end(), out.begin(), out.end());
            q = numbers.many(rows.size() * 2 * KvHead::kDim, 3);
            out = head.attend(kernels, q, rows, 2, window, cap, sinks.data());
            all.insert(all.end(), out.begin(), out.end());
        }
    return digest(all);
}

uint64_t golden_attention_small(const Kernels& kernels, bool half) {
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

uint64_t golden_attention_distant(const Kernels& kernels) {
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

uint64_t golden_attention_rows(const Kernels& kernels, bool half) {
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

}  // namespace bw
