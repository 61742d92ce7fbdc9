// Random programs and random steps: what must run runs, on any number of threads to the same bytes;
// what was spoilt is refused, fails with a sentence, or runs.
#include <algorithm>
#include <new>
#include <stdexcept>

#include "fuzz/program_maker.h"
#include "fuzz/run.h"
#include "kernels/isa.h"

namespace bw::fuzz {

namespace {

// The arrays of a step.
struct MadeStep {
    std::vector<int32_t> tokens, slots, positions, wants, tables, states;
    std::vector<float> embeddings;
    StepRows rows;
};

// Rows of some sequences, each of which goes on from where it was; page tables that share no page.
class StepMaker {
  public:
    StepMaker(Random& random, const Program& program, const ExecutorOptions& options)
        : random_(random),
          program_(program),
          max_rows_(std::min(options.max_rows, 70)),
          pages_(std::clamp(options.max_slots_pages, 1, 6)),
          lengths_(static_cast<size_t>(
              std::clamp(options.num_pages / pages_, 1, std::min(max_rows_, 6)))),
          most_drafted_(std::clamp(options.max_drafted, 0, 70)),
          spare_(options.num_states - 1) {}

    MadeStep make() {
        MadeStep step;
        const int count = random_.between(1, max_rows_);
        for (int i = 0; i < count; i++) {
            const size_t slot =
                lengths_.size() * static_cast<size_t>(i) / static_cast<size_t>(count);
            if (lengths_[slot] >= pages_ * kPage) {
                if (!step.slots.empty() && step.slots.back() == static_cast<int32_t>(slot))
                    continue;
                lengths_[slot] = 0;  // another sequence
            }
            step.slots.push_back(static_cast<int32_t>(slot));
            step.positions.push_back(lengths_[slot]++);
            step.wants.push_back(random_.chance(50));
            step.tokens.push_back(0);
            for (int j = 0; j < program_.hidden_size; j++)
                step.embeddings.push_back(random_.number());
        }
        for (int32_t page = 0; page < pages_ * static_cast<int>(lengths_.size()); page++)
            step.tables.push_back(page);
        if (!program_.states.empty() && random_.chance(60)) draft(step);
        connect(step);
        return step;
    }
    void spoil(MadeStep& step) {
        auto& values = *random_.pick({&step.slots, &step.positions, &step.tables,
                                      step.states.empty() ? &step.slots : &step.states});
        values[random_.below(values.size())] =
            random_.pick<int32_t>({-1, 1, 63, 64, 1000, INT32_MAX, INT32_MIN});
        const int how = random_.between(0, 9);
        int& number = how == 0 ? step.rows.slots : how == 1 ? step.rows.pages : step.rows.rows;
        if (how < 3) number = random_.pick({0, -1, INT32_MAX});
    }

  private:
    // The last rows of a sequence may turn out wrong, and the state behind some of the others be
    // kept where nobody reads it.
    void draft(MadeStep& step) {
        for (size_t slot = 0; slot < lengths_.size(); slot++) {
            const auto own = static_cast<int32_t>(slot);
            const auto rows =
                static_cast<int>(std::count(step.slots.begin(), step.slots.end(), own));
            const int drafted =
                rows > 0 ? random_.between(0, std::min(rows - 1, most_drafted_)) : 0;
            const int32_t keep = slot == 0 && random_.chance(50) ? spare_ : -1;
            for (int32_t number : {own, own, static_cast<int32_t>(drafted), keep, 1})
                step.states.push_back(number);
            lengths_[slot] -= random_.between(0, drafted);
        }
    }
    void connect(MadeStep& step) const {
        step.rows.rows = static_cast<int>(step.tokens.size());
        step.rows.slots = static_cast<int>(lengths_.size());
        step.rows.pages = pages_;
        step.rows.tokens = step.tokens.data();
        step.rows.slot_of = step.slots.data();
        step.rows.positions = step.positions.data();
        step.rows.wants = step.wants.data();
        step.rows.tables = step.tables.data();
        step.rows.states = step.states.empty() ? nullptr : step.states.data();
        step.rows.best_only = random_.chance(20);
    }

    Random& random_;
    const Program& program_;
    const int max_rows_, pages_;
    std::vector<int32_t> lengths_;
    const int most_drafted_, spare_;
};

void take_logits(const Executor& executor, const StepRows& rows, std::vector<uint8_t>& answer) {
    const size_t bytes = sizeof(float) * static_cast<size_t>(executor.program().vocab_size);
    for (int r = 0; r < executor.logit_rows(); r++) {
        const auto* from = reinterpret_cast<const uint8_t*>(
            executor.logits() + static_cast<size_t>(r) * executor.logits_stride());
        if (rows.best_only)
            from = reinterpret_cast<const uint8_t*>(&executor.best()[static_cast<size_t>(r)]);
        answer.insert(answer.end(), from, from + (rows.best_only ? sizeof(int32_t) : bytes));
    }
}

// The logits of all steps, or the sentence of the step that failed.
struct Answer {
    std::vector<uint8_t> logits;
    std::string failure;
};

Answer run(const MadeProgram& made, const ExecutorOptions& options, std::vector<MadeStep>& steps) {
    Executor executor(made.program, options, nullptr);
    Answer answer;
    try {
        for (const MadeStep& step : steps) {
            executor.run(step.rows, step.embeddings.data());
            take_logits(executor, step.rows, answer.logits);
        }
    } catch (const StepError& error) {
        answer.failure = error.what();
    }
    return answer;
}

std::string run_sound(Random& random, const MadeProgram& made) {
    std::vector<MadeStep> steps;
    StepMaker maker(random, made.program, made.options);
    for (int i = random.between(1, 3); i > 0; i--) steps.push_back(maker.make());
    try {
        ExecutorOptions alone = made.options;
        alone.threads = 1;
        const Answer one = run(made, alone, steps), all = run(made, made.options, steps);
        if (one.failure.empty() != all.failure.empty() || one.logits != all.logits)
            throw Wrong{"another answer on " + std::to_string(made.options.threads) + " threads"};
        return one.failure.empty() ? "accepted: ran" : "accepted: " + kind_of_error(one.failure);
    } catch (const std::invalid_argument& error) {
        throw Wrong{std::string("refused: ") + error.what()};
    }
}

std::string run_spoilt(Random& random, const MadeProgram& made, bool spoil_steps) {
    try {
        Executor executor(made.program, made.options, nullptr);
        StepMaker maker(random, executor.program(), made.options);
        std::vector<uint8_t> logits;
        for (int i = 0; i < 2; i++) {
            MadeStep step = maker.make();
            if (spoil_steps) maker.spoil(step);
            executor.run(step.rows, step.embeddings.data());
            take_logits(executor, step.rows, logits);
        }
        return "accepted: ran, though spoilt";
    } catch (const std::invalid_argument& error) {
        return "refused: " + kind_of_error(error.what());
    } catch (const StepError& error) {
        return "accepted: " + kind_of_error(error.what());
    } catch (const std::bad_alloc&) {
        return "refused: out of memory";
    }
}

}  // namespace

Input random_programs(const Plan&) {
    return [kernels = usable_kernels()](Random& random) {
        MadeProgram made = make_program(random);
        made.options.kernels = kernels[random.below(kernels.size())];
        if (random.chance(40)) return run_sound(random, made);
        const bool steps = random.chance(20);
        for (int turn = random.pick({1, 1, 2, 3}); turn > 0 && !steps; turn--) spoil(random, made);
        return run_spoilt(random, made, steps);
    };
}

}  // namespace bw::fuzz
