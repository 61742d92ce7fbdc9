// Routing: the rows of a step by the experts that they go to.
#pragma once
#include <cstddef>
#include <vector>

namespace bw {

// Rows of one expert: entries `first` up to `first + count` of its Routing.
struct ExpertRows {
    int expert = 0, first = 0, count = 0;
};

// Made by each member for itself of a buffer of routes; keeps its memory from step to step.
struct Routing {
    std::vector<ExpertRows> experts;  // those that have rows, and a matrix here; ascending
    std::vector<int> rows, slots;     // of each entry
    std::vector<float> weights;
    std::vector<size_t> places;  // where its outputs begin, for the operation at hand
    std::vector<int> counts;     // while it is made

    int entries() const { return static_cast<int>(rows.size()); }
};

}  // namespace bw
