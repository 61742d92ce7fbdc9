// ThreadTeam: persistent threads that run one function together, with a barrier that spins for a
// bounded time and then sleeps. The calling thread is member 0. Knows no work of its own.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace bw {

inline void cpu_pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Waits until a value changes: looks for `spin_seconds`, then sleeps on a condition variable.
class Gate {
  public:
    Gate(double spin_seconds, bool yields) : spin_seconds_(spin_seconds), yields_(yields) {}
    uint32_t value() const { return value_.load(std::memory_order_acquire); }
    void wait_change(uint32_t seen);
    void advance();

  private:
    const double spin_seconds_;
    const bool yields_;  // give the processor away while spinning
    std::atomic<uint32_t> value_{0};
    std::atomic<int> sleepers_{0};
    std::mutex mutex_;
    std::condition_variable wake_;
};

constexpr int kMostThreads = 1024;

class ThreadTeam {
  public:
    // `cpus`: a processor for each member to be pinned to, or empty. `spin` off where threads
    // outnumber processors: waiting then gives the processor away at once. Throws
    // std::invalid_argument for a number of members that makes no sense or that the system refuses.
    ThreadTeam(int members, const std::vector<int>& cpus, bool spin);
    ~ThreadTeam();
    ThreadTeam(const ThreadTeam&) = delete;
    ThreadTeam& operator=(const ThreadTeam&) = delete;

    int members() const { return members_; }
    // Runs work(member) on every member and returns when all have ended. What a member throws ends
    // the work of the others at their next barrier; the first of it is thrown here then.
    void run(const std::function<void(int)>& work);
    // All members of the running work meet here. Throws what only run() may catch where one of them
    // has failed.
    void barrier();
    // How often they have met; read between two barriers.
    uint64_t barriers() const { return barriers_; }

  private:
    struct Broken {};  // thrown by barriers where a member has failed

    void loop(int member);
    void end();
    void pin(int member) const;
    void do_part(int member) noexcept;
    void fail(std::exception_ptr error) noexcept;
    bool arrive() noexcept;

    const int members_;
    const std::vector<int> cpus_;
    const std::function<void(int)>* work_ = nullptr;
    bool ending_ = false;
    std::atomic<int> missing_{0};  // members that have yet to arrive at the barrier
    std::atomic<int> failed_{0};   // members that come to no barrier of this work any more
    std::atomic<int> working_{0};
    // Written by the last to arrive, before it lets the others go.
    uint64_t barriers_ = 0;
    bool broken_ = false;
    std::mutex error_mutex_;
    std::exception_ptr error_;  // the first
    Gate start_, barrier_, end_;
    std::vector<std::thread> threads_;
};

}  // namespace bw
