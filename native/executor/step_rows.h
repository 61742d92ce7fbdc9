// The rows of a step; see executors/executor.py. Pointers live as long as the call.
#pragma once
#include <cstdint>

namespace bw {

// Numbers of a sequence's part in StepRows::states.
constexpr int kStateNumbers = 5;

struct StepRows {
    int rows = 0, slots = 0, pages = 0;
    const int32_t* tokens = nullptr;
    const int32_t* slot_of = nullptr;
    const int32_t* positions = nullptr;
    const int32_t* wants = nullptr;
    const int32_t* tables = nullptr;  // [slots, pages]
    const int32_t* states = nullptr;  // [slots, kStateNumbers], or null: each slot has its own
    // Of a step that drafts: for each row the row of the last step whose hidden state it reads.
    const int32_t* sources = nullptr;
    bool best_only = false;  // the best token of each row instead of its logits
    bool prefill = false;    // has rows of a prompt: no step of decoding
};

}  // namespace bw
