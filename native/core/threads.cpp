#include "core/threads.h"

#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include "core/clock.h"
#include "core/system.h"

namespace bw {

namespace {
constexpr double kSpin = 500e-6;   // seconds
constexpr double kYield = 100e-6;  // where threads outnumber processors: who waits lets others work
constexpr int kLooks = 32;         // between two looks at the clock
}  // namespace

void Gate::wait_change(uint32_t seen) {
    const double until = now() + spin_seconds_;
    do {
        for (int i = 0; i < (yields_ ? 1 : kLooks); i++) {
            if (value() != seen) return;
            if (yields_)
                std::this_thread::yield();
            else
                cpu_pause();
        }
    } while (now() < until);
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1);
    wake_.wait(lock, [&] { return value_.load() != seen; });
    sleepers_.fetch_sub(1);
}

void Gate::advance() {
    value_.fetch_add(1);
    if (sleepers_.load() > 0) {
        // Taking the lock orders this after a sleeper's check and before its sleep.
        {
            std::lock_guard<std::mutex> lock(mutex_);
        }
        wake_.notify_all();
    }
}

ThreadTeam::ThreadTeam(int members, const std::vector<int>& cpus, bool spin)
    : members_(members),
      cpus_(cpus),
      start_(spin ? kSpin : kYield, !spin),
      barrier_(spin ? kSpin : kYield, !spin),
      end_(spin ? kSpin : kYield, !spin) {
    if (members < 1 || members > kMostThreads)
        throw std::invalid_argument(std::to_string(members) + " threads; 1 to " +
                                    std::to_string(kMostThreads) + " are possible");
    try {
        for (int member = 1; member < members_; member++)
            threads_.emplace_back([this, member] { loop(member); });
    } catch (const std::system_error& error) {
        end();
        throw std::invalid_argument("this system starts no " + std::to_string(members) +
                                    " threads (" + error.code().message() +
                                    "): ask for fewer, or raise its limit");
    } catch (...) {
        end();
        throw;
    }
}

ThreadTeam::~ThreadTeam() { end(); }

void ThreadTeam::end() {
    ending_ = true;
    start_.advance();
    for (auto& thread : threads_) thread.join();
    threads_.clear();
}

void ThreadTeam::pin(int member) const {
    if (member < static_cast<int>(cpus_.size())) place_thread(cpus_[static_cast<size_t>(member)]);
}

void ThreadTeam::loop(int member) {
    pin(member);
    uint32_t seen = 0;
    for (;;) {
        start_.wait_change(seen);
        seen++;
        if (ending_) return;
        do_part(member);
    }
}

void ThreadTeam::run(const std::function<void(int)>& work) {
    if (members_ == 1) {
        work(0);
        return;
    }
    work_ = &work;
    broken_ = false;
    failed_.store(0, std::memory_order_relaxed);
    missing_.store(members_, std::memory_order_relaxed);
    working_.store(members_, std::memory_order_relaxed);
    const uint32_t seen = end_.value();
    start_.advance();
    do_part(0);
    end_.wait_change(seen);
    barriers_++;
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void ThreadTeam::do_part(int member) noexcept {
    try {
        (*work_)(member);
    } catch (const Broken&) {
        fail(nullptr);
    } catch (...) {
        fail(std::current_exception());
    }
    if (working_.fetch_sub(1) == 1) end_.advance();
}

// Arrives in the place of a member that has left its work, at the barrier that the others come to
// next; they learn there that it has failed and leave theirs in turn.
void ThreadTeam::fail(std::exception_ptr error) noexcept {
    if (error) {
        std::lock_guard<std::mutex> lock(error_mutex_);
        if (!error_) error_ = std::move(error);
    }
    failed_.fetch_add(1);
    arrive();
}

// True for the last to arrive, who lets the others go.
bool ThreadTeam::arrive() noexcept {
    if (missing_.fetch_sub(1) != 1) return false;
    const int failed = failed_.load();
    missing_.store(members_ - failed);
    broken_ = failed > 0;
    barriers_++;
    barrier_.advance();
    return true;
}

void ThreadTeam::barrier() {
    if (members_ == 1) return;
    const uint32_t seen = barrier_.value();
    if (!arrive()) barrier_.wait_change(seen);
    if (broken_) throw Broken{};
}

}  // namespace bw
