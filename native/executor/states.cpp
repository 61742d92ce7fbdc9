#include "executor/states.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "executor/check.h"

namespace bw {

namespace {

void require(bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
}

}  // namespace

StateBook::StateBook(int num_states, int most_drafted)
    : num_states_(num_states),
      most_drafted_(most_drafted),
      stands_(static_cast<size_t>(num_states)),
      writer_(static_cast<size_t>(num_states)) {}

void StateBook::begin(const StepRows& step) {
    plan(step);
    for (const Turn& turn : turns_) {
        const int start = step.positions[rows_[static_cast<size_t>(turn.rows.from)]];
        const int drafted = turn.rows.to - turn.rows.from - turn.certain;
        stands_[static_cast<size_t>(turn.write)] = {start + turn.certain, drafted};
        if (turn.keep >= 0) stands_[static_cast<size_t>(turn.keep)] = {start + turn.kept, 0};
    }
}

void StateBook::fail() {
    for (const Turn& turn : turns_) {
        stands_[static_cast<size_t>(turn.write)] = {};
        if (turn.keep >= 0) stands_[static_cast<size_t>(turn.keep)] = {};
    }
}

void StateBook::plan(const StepRows& step) {
    const auto slots = static_cast<size_t>(step.slots);
    first_of_.assign(slots + 1, 0);
    for (int r = 0; r < step.rows; r++) first_of_[static_cast<size_t>(step.slot_of[r]) + 1]++;
    for (size_t s = 0; s < slots; s++) first_of_[s + 1] += first_of_[s];
    rows_.resize(static_cast<size_t>(step.rows));
    std::vector<int> next(first_of_.begin(), first_of_.end() - 1);
    for (int r = 0; r < step.rows; r++)
        rows_[static_cast<size_t>(next[static_cast<size_t>(step.slot_of[r])]++)] = r;
    turns_.clear();
    std::fill(writer_.begin(), writer_.end(), -1);
    for (int s = 0; s < step.slots; s++) {
        const Span own{first_of_[static_cast<size_t>(s)], first_of_[static_cast<size_t>(s) + 1]};
        if (own.from == own.to) continue;
        const int32_t own_numbers[kStateNumbers] = {s, s, 0, -1, 0};
        const int32_t* numbers =
            step.states ? step.states + static_cast<size_t>(s) * kStateNumbers : own_numbers;
        const Turn turn = turn_of(step, own, numbers);
        claim(turn.write, s);
        if (turn.keep >= 0) claim(turn.keep, s);
        turns_.push_back(turn);
    }
    for (const Turn& turn : turns_)
        require(
            turn.fresh || turn.read == turn.write || writer_[static_cast<size_t>(turn.read)] < 0,
            "a sequence reads a state that another one writes");
}

void StateBook::claim(int slot, int sequence) {
    int& writer = writer_[static_cast<size_t>(slot)];
    require(writer < 0, "two sequences write one state");
    writer = sequence;
}

Turn StateBook::turn_of(const StepRows& step, Span rows, const int32_t* numbers) const {
    const int count = rows.to - rows.from, drafted = numbers[2];
    auto position = [&](int place) { return step.positions[rows_[static_cast<size_t>(place)]]; };
    const int start = position(rows.from);
    for (int place = rows.from; place < rows.to; place++)
        require(position(place) == start + (place - rows.from),
                "a sequence's rows leave out a position");
    require(0 <= drafted && drafted < count && drafted <= most_drafted_,
            "a sequence has more drafted rows than its state keeps");
    auto exists = [&](int slot) { return 0 <= slot && slot < num_states_; };
    Turn turn;
    turn.rows = rows;
    turn.fresh = start == 0;
    turn.read = turn.fresh ? 0 : numbers[0];
    turn.write = numbers[1];
    turn.certain = count - drafted;
    turn.keep = std::max(-1, static_cast<int>(numbers[3]));
    turn.kept = numbers[4];
    require(exists(turn.write) && (turn.keep < 0 || exists(turn.keep)) &&
                (turn.fresh || exists(turn.read)),
            "a state does not exist");
    require(turn.keep < 0 || (1 <= turn.kept && turn.kept <= turn.certain),
            "a state is kept that is none");
    if (turn.fresh) return turn;
    const Stands& stands = stands_[static_cast<size_t>(turn.read)];
    require(stands.behind >= 0 && stands.behind <= start && start - stands.behind <= stands.drafted,
            "a sequence goes on elsewhere than its state stands");
    turn.replayed = start - stands.behind;
    return turn;
}

LayerState layer_state(const StateShape& shape, int most_drafted) {
    LayerState state;
    const auto rows = static_cast<size_t>(shape.history) + static_cast<size_t>(most_drafted);
    const auto heads = static_cast<size_t>(shape.heads);
    state.matrix_floats = checked_product(
        {static_cast<size_t>(shape.k_dim), static_cast<size_t>(padded(shape.v_dim))});
    state.rows_at = checked_product({heads, state.matrix_floats});
    state.row_floats = static_cast<size_t>(padded(shape.row));
    state.slot_floats = state.rows_at + checked_product({rows, state.row_floats});
    return state;
}

}  // namespace bw
