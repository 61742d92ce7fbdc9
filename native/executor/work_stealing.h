// WorkStealing: which member of a team does which part of a piece of work, when all go for it at
// once.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "executor/span.h"

namespace bw {

// Each member takes its own part first, half of it, then half of what is left, and so on; then it
// takes what its neighbours have not begun. So equal parts stay with their member and in its memory
// node, and a member that is held up, by a neighbour on its core or an interrupt, keeps the others
// waiting for one piece and not for its whole part.
//
// A barrier stands between two works: each work resets the counters of the next.
class WorkStealing {
  public:
    explicit WorkStealing(int members) : members_(members), places_(static_cast<size_t>(members)) {}

    // Every member at the start of a step, before its first barrier.
    void start(int member) {
        Place& own = places_[static_cast<size_t>(member)];
        own.turn = 0;
        own.taken[0].store(0, std::memory_order_relaxed);
    }
    // Every member at the start of each work.
    void begin(int member) {
        Place& own = places_[static_cast<size_t>(member)];
        own.turn ^= 1;
        own.taken[own.turn].store(0, std::memory_order_relaxed);
    }
    // Some of `count` things, or false when nothing is left to take.
    bool take(int member, int count, Span* some) {
        const int turn = places_[static_cast<size_t>(member)].turn ^ 1;
        for (int i = 0; i < members_ && i <= kNeighbours; i++) {
            const int owner = (member + i) % members_;
            std::atomic<int>& taken = places_[static_cast<size_t>(owner)].taken[turn];
            while (taken.load(std::memory_order_relaxed) < kPieces) {
                const int piece = taken.fetch_add(1, std::memory_order_relaxed);
                if (piece >= kPieces) break;
                *some = cut(part(count, owner, members_), piece);
                if (some->from < some->to) return true;
            }
        }
        return false;
    }

  private:
    static constexpr int kPieces = 6;  // the last two are 1/32 of a part
    static constexpr int kNeighbours = 3;

    struct alignas(64) Place {
        std::array<std::atomic<int>, 2> taken{};  // pieces, by turn
        int turn = 0;                             // of the next work
    };

    static Span cut(Span own, int piece) {
        const int count = own.to - own.from;
        auto at = [&](int i) { return own.to - (i < kPieces ? count >> i : 0); };
        return {at(piece), at(piece + 1)};
    }

    const int members_;
    std::vector<Place> places_;
};

}  // namespace bw
