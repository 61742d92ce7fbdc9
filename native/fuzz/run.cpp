#include "fuzz/run.h"

#include <sanitizer/common_interface_defs.h>

#include <atomic>
#include <chrono>
#include <cinttypes>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "core/clock.h"

namespace bw::fuzz {

namespace {

// The input at hand, for whoever ends the process.
std::atomic<uint64_t> at_hand{0};

void name_input() { std::fprintf(stderr, "input %" PRIu64 " ended the process\n", at_hand.load()); }

[[noreturn]] void stop(const Plan& plan, uint64_t input, const std::string& what) {
    std::fprintf(stderr, "input %" PRIu64 " of seed %" PRIu64 ": %s\n", input, plan.seed,
                 what.c_str());
    std::abort();
}

// Looks a few times a second whether the input at hand has been under way for too long.
class Watchdog {
  public:
    Watchdog(const Plan& plan, double most_seconds)
        : plan_(plan), most_seconds_(most_seconds), thread_([this] { watch(); }) {}
    ~Watchdog() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            ending_ = true;
        }
        wake_.notify_all();
        thread_.join();
    }
    void begin(uint64_t input) {
        std::lock_guard<std::mutex> lock(mutex_);
        input_ = input;
        begun_ = now();
    }

  private:
    void watch() {
        std::unique_lock<std::mutex> lock(mutex_);
        while (!ending_) {
            wake_.wait_for(lock, std::chrono::milliseconds(200));
            if (!ending_ && begun_ > 0 && now() - begun_ > most_seconds_)
                stop(plan_, input_, "takes too long");
        }
    }

    const Plan& plan_;
    const double most_seconds_;
    std::mutex mutex_;
    std::condition_variable wake_;
    uint64_t input_ = 0;
    double begun_ = 0;
    bool ending_ = false;
    std::thread thread_;
};

}  // namespace

Outcomes run_inputs(const Plan& plan, double most_seconds, const Input& input) {
    __sanitizer_set_death_callback(name_input);
    Outcomes outcomes;
    Watchdog watchdog(plan, most_seconds);
    for (uint64_t number = plan.first; number < plan.first + plan.inputs; number++) {
        watchdog.begin(number);
        at_hand.store(number);
        Random random(plan.seed, number);
        try {
            outcomes[input(random)]++;
        } catch (const Wrong& wrong) {
            stop(plan, number, wrong.what);
        }
    }
    return outcomes;
}

std::string kind_of_error(const std::string& sentence) {
    std::string words;
    for (char c : sentence) {
        const bool digit = c >= '0' && c <= '9';
        if (!digit || words.empty() || words.back() != '#') words += digit ? '#' : c;
    }
    return words.substr(0, 100);
}

}  // namespace bw::fuzz
