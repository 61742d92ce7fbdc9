#include "executor/place.h"

#include <system_error>
#include <thread>

#include "core/system.h"
#include "executor/span.h"

namespace bw {

void place_panels(const std::vector<Matrix>& matrices, const std::vector<int>& cpus) {
    constexpr size_t kPageBytes = 4096;
    const int members = static_cast<int>(cpus.size());
    std::vector<std::thread> threads;
    auto touch = [&](int member) {
        place_thread(cpus[static_cast<size_t>(member)]);
        for (const Matrix& matrix : matrices) {
            // The same parts as Executor::product's.
            const Span own = part(matrix.num_panels(), member, members);
            const size_t each = panel_bytes(matrix.format, matrix.layout);
            auto* panels = const_cast<uint8_t*>(matrix.panels);
            const size_t stop = each * static_cast<size_t>(own.to);
            for (size_t at = each * static_cast<size_t>(own.from); at < stop; at += kPageBytes)
                *static_cast<volatile uint8_t*>(panels + at) = 0;
        }
    };
    try {
        for (int member = 0; member < members; member++) threads.emplace_back(touch, member);
    } catch (const std::system_error&) {
        // No thread to be had: these pages lie where they are first written, in the right answer.
    }
    for (std::thread& thread : threads) thread.join();
}

}  // namespace bw
