// Greedy generation of one sequence on one node, as generation/generation.py does it. Knows tokens,
// no text.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/float_mode.h"
#include "runner/dump_file.h"

namespace bw {

struct GenerateOptions {
    int max_tokens = 16;
    int threads = 1;
    Subnormals subnormals = Subnormals::kept;
    const Kernels* kernels = nullptr;
};

struct Answer {
    std::vector<int32_t> tokens;
    std::string logits_digest;  // SHA-256 over the logits of every token's position, as float32
    double prefill_seconds = 0, decode_seconds = 0;
};

// Throws std::invalid_argument for a prompt that does not fit, StepError where a step fails.
Answer generate(const DumpFile& dump, const std::vector<int32_t>& prompt,
                const GenerateOptions& options);

}  // namespace bw
