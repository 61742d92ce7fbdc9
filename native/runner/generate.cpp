#include "runner/generate.h"

#include <algorithm>
#include <stdexcept>
#include <thread>

#include "core/clock.h"
#include "executor/executor.h"
#include "runner/sha256.h"

namespace bw {

namespace {

void check_prompt(const DumpFile& dump, const std::vector<int32_t>& prompt) {
    if (prompt.empty()) throw std::invalid_argument("the prompt is empty");
    if (prompt.size() >= static_cast<size_t>(dump.context))
        throw std::invalid_argument("the prompt has " + std::to_string(prompt.size()) +
                                    " tokens, but the context holds " +
                                    std::to_string(dump.context) + ", the answer included");
    for (int32_t token : prompt)
        if (token < 0 || token >= dump.program.vocab_size)
            throw std::invalid_argument("token " + std::to_string(token) +
                                        " is not in the vocabulary of " +
                                        std::to_string(dump.program.vocab_size));
}

ExecutorOptions executor_options(const DumpFile& dump, const GenerateOptions& options,
                                 size_t tokens) {
    ExecutorOptions result;
    result.max_rows = dump.max_rows;
    result.num_pages = static_cast<int>((tokens + kPage - 1) / kPage);
    result.max_slots_pages = result.num_pages;
    result.num_states = 1;
    result.half_kv = dump.half_kv;
    result.threads = options.threads;
    result.spin = options.threads <= static_cast<int>(std::thread::hardware_concurrency());
    result.kernels = options.kernels;
    result.subnormals = options.subnormals;
    return result;
}

}  // namespace

Answer generate(const DumpFile& dump, const std::vector<int32_t>& prompt,
                const GenerateOptions& options) {
    check_prompt(dump, prompt);
    const size_t most = std::min(prompt.size() + static_cast<size_t>(options.max_tokens),
                                 static_cast<size_t>(dump.context));
    Executor executor(dump.program, executor_options(dump, options, most), nullptr);
    const auto hidden = static_cast<size_t>(dump.program.hidden_size);
    std::vector<int32_t> table((most + kPage - 1) / kPage);
    for (size_t p = 0; p < table.size(); p++) table[p] = static_cast<int32_t>(p);
    Answer answer;
    Sha256 digest;
    std::vector<int32_t> todo = prompt;
    size_t known = 0;
    const double start = now();
    double first_at = start;
    while (prompt.size() + answer.tokens.size() < most) {
        const size_t rows = std::min(todo.size(), static_cast<size_t>(dump.max_rows));
        std::vector<int32_t> slots(rows, 0), positions(rows), wants(rows, 0);
        std::vector<float> embeddings(rows * hidden);
        for (size_t r = 0; r < rows; r++) {
            positions[r] = static_cast<int32_t>(known + r);
            dump.embed(todo[r], embeddings.data() + r * hidden);
        }
        wants[rows - 1] = rows == todo.size() ? 1 : 0;
        StepRows step;
        step.rows = static_cast<int>(rows);
        step.slots = 1;
        step.pages = static_cast<int>((known + rows + kPage - 1) / kPage);
        step.tokens = todo.data();
        step.slot_of = slots.data();
        step.positions = positions.data();
        step.wants = wants.data();
        step.tables = table.data();
        executor.run(step, embeddings.data());
        known += rows;
        todo.erase(todo.begin(), todo.begin() + static_cast<std::ptrdiff_t>(rows));
        if (!todo.empty()) continue;
        digest.update(executor.logits(),
                      sizeof(float) * static_cast<size_t>(dump.program.vocab_size));
        const int best = options.kernels->argmax(executor.logits(), dump.program.vocab_size);
        if (best < 0) throw StepError("a logit is not finite");
        if (answer.tokens.empty()) first_at = now();
        answer.tokens.push_back(best);
        todo.push_back(best);
        if (std::find(dump.end_tokens.begin(), dump.end_tokens.end(), best) !=
            dump.end_tokens.end())
            break;
    }
    answer.logits_digest = digest.finish();
    answer.prefill_seconds = first_at - start;
    answer.decode_seconds = now() - first_at;
    return answer;
}

}  // namespace bw
