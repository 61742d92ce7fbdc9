// A dumped program with its weights: one file, as src/bandweave/executors/dump.py writes and
// describes it. Everything read is checked before it is used.
#pragma once
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/arena.h"
#include "executor/program.h"

namespace bw {

constexpr int kDumpVersion = 2;  // of the file's layout; the same number as in dump.py

// A file that cannot be used; the message says why.
struct DumpError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct DumpFile {
    Program program;  // its matrices' panels lie in the arena
    std::unique_ptr<Arena> arena;
    bool half_kv = true;
    int context = 0;   // tokens of prompt and answer at most
    int max_rows = 0;  // of a step
    std::vector<int32_t> end_tokens;
    Source embedding_source = Source::f32;
    std::vector<uint8_t> embedding;  // [vocab_size, hidden_size] as the checkpoint stores it

    // Row `token` of the embedding table as floats.
    void embed(int32_t token, float* out) const;
};

// Throws DumpError, also for a program that no executor would take, or not alone.
DumpFile read_dump(const std::string& path);

}  // namespace bw
