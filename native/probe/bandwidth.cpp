#include "probe/bandwidth.h"

#include <algorithm>
#include <atomic>

#include "core/arena.h"
#include "core/clock.h"
#include "core/threads.h"

namespace bw {

namespace {

// Enough independent sums to keep many cache lines in flight, whatever the vector width.
uint64_t read_all(const uint64_t* data, size_t words) {
    uint64_t sums[32] = {};
    for (size_t i = 0; i + 32 <= words; i += 32) {
        __builtin_prefetch(data + i + 512);
        __builtin_prefetch(data + i + 520);
        __builtin_prefetch(data + i + 528);
        __builtin_prefetch(data + i + 536);
        for (size_t j = 0; j < 32; j++) sums[j] += data[i + j];
    }
    uint64_t sum = 0;
    for (uint64_t s : sums) sum += s;
    return sum;
}

}  // namespace

double read_bandwidth(int threads, size_t bytes, int rounds, const std::vector<int>& cpus) {
    const size_t each = bytes / static_cast<size_t>(threads) / 4096 * 4096;
    Arena memory(each * static_cast<size_t>(threads));
    uint8_t* base = memory.take(each * static_cast<size_t>(threads));
    ThreadTeam team(threads, cpus, true);
    std::atomic<uint64_t> sink{0};
    // First touch by the thread that reads.
    team.run([&](int t) {
        uint8_t* own = base + each * static_cast<size_t>(t);
        for (size_t i = 0; i < each; i += 4096) own[i] = static_cast<uint8_t>(i >> 12);
    });
    double best = 1e30;
    for (int round = 0; round < rounds; round++) {
        const double start = now();
        team.run([&](int t) {
            sink += read_all(
                reinterpret_cast<const uint64_t*>(base + each * static_cast<size_t>(t)), each / 8);
        });
        best = std::min(best, now() - start);
    }
    return static_cast<double>(each) * threads / best;
}

}  // namespace bw
