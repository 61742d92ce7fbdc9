// What the fuzzers share: inputs by number, their outcomes counted, and an end to those that hang.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "fuzz/random.h"

namespace bw::fuzz {

struct Plan {
    uint64_t seed = 1, first = 0, inputs = 1000;
    std::vector<std::string> files;  // dumps to begin with
};

// How inputs ended, by a few words for each.
using Outcomes = std::map<std::string, uint64_t>;

// One input from its random numbers; in a few words, how it ended. Throws Wrong where that must not
// be.
using Input = std::function<std::string(Random&)>;

struct Wrong {
    std::string what;
};

// Runs the plan's inputs. An input that is wrong, or takes longer than `most_seconds`, ends the
// process with its number.
Outcomes run_inputs(const Plan& plan, double most_seconds, const Input& input);

// The first words of a sentence without its numbers, to count it by.
std::string kind_of_error(const std::string& sentence);

// The fuzzers. Each says what it does where it is.
Input mutated_dumps(const Plan& plan);
Input random_programs(const Plan& plan);
Input altered_transcripts(const Plan& plan);
Input altered_records(const Plan& plan);
Input failing_teams(const Plan& plan);

}  // namespace bw::fuzz
