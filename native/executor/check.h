// What a program and its options must hold to before an executor runs them, wherever they come
// from: a dumped file, the Python side, a fuzzer. An executor that was made reaches no memory but
// its own.
#pragma once
#include <cstddef>
#include <initializer_list>

#include "executor/program.h"

namespace bw {

class Exchange;
struct ExecutorOptions;

// The largest sizes that anybody believes. They keep sums of two and offsets inside int, and
// products of two inside 64 bits; where three and more meet, checked_product tells.
constexpr int kMostSize = 1 << 28;  // of any dimension
constexpr int kMostOps = 1 << 16;
constexpr int kMostRows = 1 << 20;   // of a step
constexpr int kMostPages = 1 << 24;  // of the KV cache: 2^30 positions
constexpr int kMostTables = 64;      // of frequencies: each has its angles in every step
constexpr int kMostLayers = 1 << 12, kMostKvHeads = 1 << 12, kMostHeadDim = 1 << 13;
constexpr int kMostStateDim = 1 << 10;
constexpr int kMostUnits =
    (1 << 12) - 1;                     // of a sum on the grid: each below 2^51, all inside int64
constexpr int kMostExperts = 1 << 14;  // a router looks for the best of them one by one
constexpr double kMostFrequency = 1 << 20;   // radians a position
constexpr double kMostRopeFactor = 1 << 10;  // of cosines and sines

// Throw std::invalid_argument, with the operation's name, where an index leaves its list, a view
// its buffer, a shape does not fit, a number of things to do no int, or a node the mesh. Most of it
// the table of operations says; check_operation.cpp has what it cannot say.
// `max_rows`: of a step, with which some numbers are multiplied.
void check_program(const Program& program, int max_rows);
// One operation, whose kind is in the table, of a program whose other parts are in order.
void check_operation(const Program& program, const Op& op, int max_rows);
// Whether all weights are there.
void check_weights(const Program& program);
void check_options(const ExecutorOptions& options);
// `exchange`: null for a node that is alone.
void check_mesh(const Program& program, const Exchange* exchange);

// Bytes or elements; throws std::bad_alloc where they are more than memory can have.
size_t checked_product(std::initializer_list<size_t> sizes);

}  // namespace bw
