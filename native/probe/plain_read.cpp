#include "probe/plain_read.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "core/clock.h"
#include "core/system.h"
#include "executor/span.h"

namespace bw {

namespace {

constexpr size_t kPageBytes = 4096;
constexpr size_t kAhead = 4096;  // bytes

// Enough independent sums to keep many cache lines in flight, whatever the vector width.
template <size_t kDistance>
uint64_t read_all(const uint64_t* data, size_t words) {
    uint64_t sums[32] = {};
    for (size_t i = 0; i + 32 <= words; i += 32) {
        for (size_t line = 0; kDistance > 0 && line < 4; line++)
            __builtin_prefetch(data + i + kDistance / 8 + 8 * line);
        for (size_t j = 0; j < 32; j++) sums[j] += data[i + j];
    }
    uint64_t sum = 0;
    for (uint64_t s : sums) sum += s;
    return sum;
}

}  // namespace

PlainRead::PlainRead(int threads, size_t bytes, const std::vector<int>& cpus)
    : bytes_(bytes / kPageBytes * kPageBytes),
      memory_(bytes_),
      base_(memory_.take(bytes_)),
      team_(threads, cpus, true) {
    // First touch by the thread that reads.
    team_.run([&](int member) {
        if (member == 0 && !cpus.empty()) place_thread(cpus[0]);
        const Span own = part(static_cast<int>(bytes_ / kPageBytes), member, team_.members());
        for (int page = own.from; page < own.to; page++)
            base_[static_cast<size_t>(page) * kPageBytes] = static_cast<uint8_t>(page);
    });
}

double PlainRead::bytes_per_s(int threads, int rounds) {
    if (threads < 1 || threads > team_.members() || rounds < 1)
        throw std::invalid_argument("a read needs rounds, and no more threads than there are");
    double with = 0, without = 0;
    for (int round = 0; round < rounds; round++) {
        with += seconds(threads, kAhead);
        without += seconds(threads, 0);
    }
    return static_cast<double>(bytes_) * rounds / std::min(with, without);
}

double PlainRead::seconds(int threads, size_t ahead) {
    std::atomic<uint64_t> sum{0};
    const double start = now();
    team_.run([&](int member) {
        if (member >= threads) return;
        const Span own = part(static_cast<int>(bytes_ / kPageBytes), member, threads);
        const auto* data =
            reinterpret_cast<const uint64_t*>(base_ + static_cast<size_t>(own.from) * kPageBytes);
        const size_t words = static_cast<size_t>(own.to - own.from) * kPageBytes / 8;
        sum += ahead > 0 ? read_all<kAhead>(data, words) : read_all<0>(data, words);
    });
    const double taken = now() - start;
    sums_ += sum;
    return taken;
}

}  // namespace bw
