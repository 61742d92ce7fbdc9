// Executor: runs a program step by step on a team of threads, without returning in between.
#pragma once
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/arena.h"
#include "core/float_mode.h"
#include "core/threads.h"
#include "core/zeroed.h"
#include "exchange/exchange.h"
#include "executor/fusion.h"
#include "executor/program.h"
#include "executor/reduction.h"
#include "executor/routing.h"
#include "executor/span.h"
#include "executor/states.h"
#include "executor/step_rows.h"
#include "executor/wire.h"
#include "executor/work_stealing.h"
#include "kernels/kernels.h"

namespace bw {

struct ExecutorOptions {
    int max_rows = 256;
    int num_pages = 0;        // KV pages of 64 positions
    int max_slots_pages = 0;  // longest page table that a step may bring
    int num_states = 0;       // slots of recurrent states
    int max_drafted = 0;      // rows that may be wrong, which each of them keeps
    bool half_kv = true;
    int threads = 1;
    std::vector<int> cpus;  // where to pin the threads, or empty
    bool spin = true;
    WireFormat wire = WireFormat::exact;
    // When all_reduce_add scatters sums and cuts them in chunks (reduction.h).
    size_t hop_bytes = kHopBytes;
    int overlap_rows = kOverlapRows;
    // Bytes that products fetch ahead of what they read; negative: find out (fetch_ahead.h).
    int64_t fetch_ahead = -1;
    Subnormals subnormals = Subnormals::kept;  // of the threads while a step runs
    const Kernels* kernels = nullptr;
};

// Seconds by item since the start, as thread 0 saw them, and what was counted. The items add up to
// the wall time, each measured on its own. On nodes other than 0 the way from a step to the next
// one of decoding counts as exchange wait.
struct Bill {
    double weights = 0, attention = 0, exchange_wait = 0, wire = 0, other = 0, wall = 0;
    double sealing = 0;  // within wire, wait and other: what encryption took
    uint64_t steps = 0, rows = 0, weight_bytes = 0;
    uint64_t wire_bytes[kTraffics] = {}, exchanges = 0, barriers = 0;
};

// StepError where a frame's size is not what was due.
void check_size(const Exchange::Received& frame, size_t expected, const std::string& op);

class Executor {
  public:
    // `team`: of another executor, whose steps never run at the same time; null for an own one.
    // Throws std::invalid_argument for what check.h refuses.
    Executor(Program program, ExecutorOptions options, std::shared_ptr<Exchange> exchange,
             std::shared_ptr<ThreadTeam> team = nullptr);
    ~Executor();

    // Node 0: runs a step; logits() then holds [logit_rows(), vocab_size].
    void run(const StepRows& rows, const float* embeddings);
    // Node 0 of a model in stages, whose logits are all other nodes': start() runs a step as far as
    // this node computes, finish() waits for the logits of the step that was started first and has
    // not been finished. The stages behind work meanwhile; what they get and give is in the order
    // of the steps. Both throw std::invalid_argument where they make no sense.
    bool staged() const;
    void start(const StepRows& rows, const float* embeddings);
    void finish();
    size_t under_way() const { return flights_.size(); }
    // Of the step that was run or finished last.
    bool best_only() const { return step_.best_only; }
    // Other nodes: 1 after a step, 0 when node 0 has left, 2 when `wake_descriptor` is readable.
    int follow(int wake_descriptor);

    // A step operation by operation, for an executor that computes elsewhere and leaves messages to
    // this one: node 0 opens a step, whose arrays must live as long as it, the others join it (as
    // `follow`; `start`: when its header came). Then each operation that the program has is
    // performed in its turn, on buffers that the caller reads and writes.
    void open(const StepRows& rows);
    int join(int wake_descriptor, double* start);
    void perform(size_t index, const float* embeddings);
    const StepRows& step() const { return step_; }
    size_t num_buffers() const { return storage_.size(); }
    size_t buffer_stride(size_t index) const { return storage_[index].stride; }
    float* floats(size_t index) { return storage_[index].floats.data(); }
    int64_t* grid(size_t index) { return storage_[index].grid.data(); }
    int max_rows() const { return options_.max_rows; }

    int logit_rows() const { return logit_rows_; }
    const float* logits() const;
    // After a step with best_only, on node 0: the best token's id of each row.
    const std::vector<int32_t>& best() const { return best_; }
    size_t logits_stride() const;
    // Of steps in which every row asks for logits and none is a prompt's (decoding), and of all
    // others (prefill). Steps that draft are in neither.
    const Bill& bill(bool decode) const { return bills_[decode ? 1 : 0]; }
    const Program& program() const { return program_; }
    const std::shared_ptr<ThreadTeam>& team() const { return own_team_; }
    // Goes up while the executor gets on with its work; any thread may look.
    uint32_t progress() const {
        return progress_.load(std::memory_order_relaxed) + (exchange_ ? exchange_->activity() : 0);
    }
    size_t work_bytes() const;
    size_t fetch_ahead() const { return fetch_ahead_; }

  private:
    struct Storage {
        Zeroed<float> floats;
        Zeroed<int64_t> grid;
        size_t stride = 0;
    };
    // Cosines and sines of the step's rows, [max_rows, frequencies].
    struct Angles {
        Zeroed<float> cosine, sine;
    };
    // The pages of one of the program's KV caches, each of its heads one after the other.
    struct LayerCache {
        uint8_t* pages = nullptr;
        size_t head_bytes = 0;
        size_t kv_heads = 0;
    };
    // What a convolution reads and writes.
    struct ConvRows {
        std::vector<const float*> in;
        std::vector<float*> out;
    };
    // A step that was started, and whose logits have yet to come.
    struct Flight {
        uint32_t step = 0;
        int logit_rows = 0;
        bool best_only = false;
        Bill* bill = nullptr;
    };
    // How the nodes of an all_reduce_add share its work; the same on all of them.
    struct Reduction {
        int nodes = 1, rank = 0, width = 0;
        bool contributes = true;
        WireFormat wire = WireFormat::exact;
        int chunks = 1;
        bool scattered = false;
    };
    // Some rows of it, and where its messages lie.
    struct Chunk {
        int first_row = 0;
        Blocks blocks{};
        uint8_t* wire = nullptr;
    };

    void check(const StepRows& rows);
    const Op* logits_op() const;
    void prepare(const StepRows& rows);
    void send_header(const StepRows& rows);
    int await_header(int wake_descriptor, double* start);
    void execute(double start);
    void keep_early();
    void clear_failure();
    void together(const std::function<void(int)>& what);
    void throw_failure();
    void count_wire(const WireCounters& before);
    void work(int member);
    void run_op(const Op& op, int member);
    // Any member may fail an operation; the step ends for all after it.
    void fail(const Op& op, const std::string& what);
    void fail_all(const std::string& what);
    // Runs on member 0 while the others wait; an error fails the step and sets first_failed_.
    template <typename F>
    void on_first(const Op& op, int member, F&& work) {
        barrier();
        on_first_met(op, member, work);
    }
    // The same where the others have nothing under way that the work could meet.
    template <typename F>
    void on_first_met(const Op& op, int member, F&& work) {
        if (member == 0 && !first_failed_) first_failed_ = !guarded(op, work);
        barrier();
    }
    template <typename F>
    bool guarded(const Op& op, F&& work) {
        try {
            work();
            return true;
        } catch (const std::exception& error) {
            fail(op, error.what());
            return false;
        }
    }
    // all_reduce and its kin, in reduce.cpp.
    Reduction reduction(const Op&) const;
    bool overlaps(size_t index) const;
    Chunk chunk(const Reduction&, int index);
    Span slice(const Reduction&, const Blocks&, int rank) const;
    size_t room(const Reduction&, const Blocks&) const;
    size_t slice_room(const Blocks&, Span) const;
    uint8_t* message(const Reduction&, const Chunk&, int rank) const;
    int64_t* block_values(const View& grid, const Chunk&, int block);
    void encode(const Op&, const Chunk&, Span whole, Span blocks, WireFormat, uint8_t* payload);
    size_t finish(const Op&, const Chunk&, Span whole, WireFormat, uint8_t* payload);
    void check_message(const Exchange::Received&, const Op&, const Chunk&, Span whole,
                       WireFormat) const;
    void decode(const Exchange::Received&, const Op&, const Chunk&, Span whole, Span blocks,
                bool add);
    void contribute(const Op&, const Reduction&, int index, int member);
    bool sum_slice(const Op&, const Reduction&, int index, int member);
    bool collect(const Op&, const Reduction&, int index, int member);
    void end_sum(const Op&, const Chunk&, int member);
    void reduce(const Op* product_op, const Op&, int member);
    void limit_frames();
    void make_caches();
    void make_states();
    size_t state_scratch() const;
    void turn_angles(int member);

    // One for each kind of operation: a member's part of it.
#define BW_DECLARE(kind) void kind(const Op&, int member);
    BW_OPERATIONS(BW_DECLARE)
#undef BW_DECLARE
    void product(const Op&, int member, bool on_grid, Span rows);
    bool quantise_row(const Op&, const Matrix&, int index, int member, uint8_t* activations);
    void product_panels(const Op&, const Matrix&, ProductArgs args, Span panels, Span rows,
                        bool on_grid);
    // Mixtures of experts, in expert_ops.cpp.
    bool read_routes(const Op&, int member);
    const Matrix& expert_matrix(const Op&, int expert) const;
    void expert_product(const Op&, const Matrix&, const Routing&, const ExpertRows&, Span panels,
                        size_t input_bytes, ProductArgs args, int member);
    bool expert_inputs(const Op&, int member, bool of_slots);
    bool shared_inputs(const Op&, int member);
    void expert_sums(const Op&, const Routing&, Span panels, const std::vector<uint8_t*>& inputs,
                     int member);
    void count_experts(const Op&, int member);
    size_t expert_input_bytes() const;
    size_t head_input_bytes() const;
    void change_state(const Op&, const Turn&, int head, int member);
    void attend_latent(const Op&, int member, Span rows, Span heads);
    Span attention_part(const Op&, int member) const;
    // Calls kernel(row, from, to) for a member's share of the output's numbers.
    template <typename F>
    void lanes(const Op&, int member, F&& kernel);
    using Attend = void (Executor::*)(const Op&, int member, Span rows, Span heads);
    void attend_own(const Op&, int member, Attend attend);
    void attend(const Op&, int member, Span rows, Span heads);
    void gather_best(const Op&);

    int rows_of(const View& view) const;
    float* row(const View& view, int index);
    size_t stride(const View& view) const;
    const int32_t* table_of(int row) const;
    uint8_t* head_page(int cache, int page, int head) const;
    void barrier();
    // Member 0 shows that work goes on: between operations and inside long ones.
    void tick(int member);

    Program program_;
    Fusion fusion_;
    const ExecutorOptions options_;
    const Kernels& kernels_;
    std::shared_ptr<Exchange> exchange_;
    std::vector<Storage> storage_;
    std::vector<Routing> routings_;  // per thread
    std::vector<std::vector<uint8_t*>> inputs_of_;
    Zeroed<uint8_t> gathered_;              // rows by expert, as their products read them
    std::vector<Zeroed<uint8_t>> scratch_;  // per thread: one quantised row, attention
    std::vector<Zeroed<float>> normal_;     // per thread: one row after a norm left to a product
    Zeroed<uint8_t> activations_;           // quantised rows of a step
    std::vector<Angles> angles_;            // by table of frequencies
    std::unique_ptr<Arena> cache_;
    std::vector<LayerCache> caches_;
    std::unique_ptr<Arena> state_memory_;
    std::vector<LayerState> states_;
    StateBook book_;
    Zeroed<float> zeros_;              // a row before a sequence begins
    std::vector<ConvRows> conv_rows_;  // per thread

    // The step at hand.
    StepRows step_;
    std::vector<int32_t> header_;    // of another node's step, which holds its arrays
    std::vector<int> logit_row_of_;  // rows that ask for logits
    int logit_rows_ = 0;
    std::vector<int32_t> best_;
    const float* embeddings_ = nullptr;
    bool gathers_ = true;  // its logits are waited for within it
    std::deque<Flight> flights_;
    std::atomic<int> failed_at_{0};  // index of the first operation that failed
    bool first_failed_ = false;
    std::atomic<uint32_t> progress_{0};
    std::string failure_;
    std::mutex failure_mutex_;
    std::atomic<bool> wide_{false};
    const std::vector<Exchange::Received>* received_ = nullptr;
    Zeroed<uint8_t> wire_;   // the messages of one all_reduce_add
    double overlapped_ = 0;  // seconds of products while exchanges were under way

    Bill bills_[3];  // the last of steps that draft
    Bill* bill_ = &bills_[0];
    double mark_ = 0, ended_at_ = 0;  // up to where time is billed; the end of the last step
    std::shared_ptr<ThreadTeam> own_team_;
    ThreadTeam& team_;
    WorkStealing stealing_;
    size_t fetch_ahead_ = 0;
};

}  // namespace bw
