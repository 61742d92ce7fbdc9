// Recurrent states of sequences: what their slots hold, and which a step reads and writes.
#pragma once
#include <vector>

#include "executor/program.h"
#include "executor/span.h"
#include "executor/step_rows.h"
#include "kernels/kernels.h"

namespace bw {

// A sequence's part of a step. Of its rows the first `certain` are surely its own; of the rows that
// the slot `read` keeps, the first `replayed` turned out right. The slot `keep`, if it is none
// below 0, gets the state behind `kept` rows.
struct Turn {
    Span rows;  // places in StateBook::rows
    bool fresh = false;
    int read = 0, write = 0, replayed = 0, certain = 0, keep = -1, kept = 0;
};

// Where each slot's state stands: behind so many tokens, with so many rows after them that may be
// wrong. The same on all nodes.
class StateBook {
  public:
    StateBook(int num_states, int most_drafted);

    // Throws std::invalid_argument for a step that the states do not allow.
    void check(const StepRows& step) { plan(step); }
    // The turns of the step's sequences; their slots stand as they will behind it.
    void begin(const StepRows& step);
    // The step has failed: what it wrote is nothing.
    void fail();
    const std::vector<Turn>& turns() const { return turns_; }
    // The rows of all turns, one turn's after the other's.
    const std::vector<int>& rows() const { return rows_; }

  private:
    struct Stands {
        int behind = -1, drafted = 0;
    };

    void plan(const StepRows& step);
    Turn turn_of(const StepRows& step, Span rows, const int32_t* numbers) const;
    void claim(int slot, int sequence);

    const int num_states_, most_drafted_;
    std::vector<Stands> stands_;
    std::vector<Turn> turns_;
    std::vector<int> rows_, first_of_, writer_;
};

// One of a program's states, in all slots. A slot has the heads' matrices, whose rows are padded to
// whole vectors, and then the last rows: those before where the slot stands, and those that may be
// wrong.
struct LayerState {
    float* data = nullptr;
    size_t slot_floats = 0, matrix_floats = 0, row_floats = 0, rows_at = 0;

    float* matrix(int slot, int head) const {
        return data + static_cast<size_t>(slot) * slot_floats +
               static_cast<size_t>(head) * matrix_floats;
    }
    float* row(int slot, int place) const {
        return data + static_cast<size_t>(slot) * slot_floats + rows_at +
               static_cast<size_t>(place) * row_floats;
    }
};

// The sizes of a slot; throws std::bad_alloc where no memory has so much.
LayerState layer_state(const StateShape& shape, int most_drafted);

}  // namespace bw
