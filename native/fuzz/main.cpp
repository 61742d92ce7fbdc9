// bandweave-fuzz: many inputs for the parts of the core that take what others made, under the
// sanitizers. An input that ends the process says its number; --first N --inputs 1 runs it again.
#include <sys/resource.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "core/clock.h"
#include "fuzz/run.h"

// Memory that nobody has is an error for the program to take, as without the sanitizer; memory that
// grows is found out.
extern "C" const char* __asan_default_options() {
    return "allocator_may_return_null=1:max_allocation_size_mb=2000:hard_rss_limit_mb=3000:"
           "quarantine_size_mb=32";
}

namespace {

using namespace bw::fuzz;

struct Fuzzer {
    const char* name;
    Input (*make)(const Plan&);
    double most_seconds;
};

constexpr Fuzzer kFuzzers[] = {
    {"dumps", mutated_dumps, 60},
    {"programs", random_programs, 60},
    {"transcripts", altered_transcripts, 30},
    {"records", altered_records, 30},
    {"teams", failing_teams, 30},
};

int usage() {
    std::fputs(
        "usage: bandweave-fuzz dumps|programs|transcripts|records|teams [--inputs N] [--seed N] "
        "[--first N] [DUMP ...]\n",
        stderr);
    return 2;
}

void print(const char* name, const Plan& plan, const Outcomes& outcomes, double seconds) {
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    std::printf("{\"kind\": \"%s\", \"inputs\": %" PRIu64 ", \"outcomes\": {", name, plan.inputs);
    const char* between = "";
    for (const auto& [what, count] : outcomes) {
        std::printf("%s\"", between);
        for (char c : what) std::printf(c == '"' || c == '\\' ? "\\%c" : "%c", c);
        std::printf("\": %" PRIu64, count);
        between = ", ";
    }
    std::printf("}, \"seconds\": %.1f, \"peak_rss_bytes\": %ld}\n", seconds,
                used.ru_maxrss * 1024L);
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 2) return usage();
    Plan plan;
    for (int i = 2; i < count; i++) {
        uint64_t* number = std::strcmp(arguments[i], "--inputs") == 0  ? &plan.inputs
                           : std::strcmp(arguments[i], "--seed") == 0  ? &plan.seed
                           : std::strcmp(arguments[i], "--first") == 0 ? &plan.first
                                                                       : nullptr;
        if (!number)
            plan.files.emplace_back(arguments[i]);
        else if (++i < count)
            *number = std::strtoull(arguments[i], nullptr, 10);
        else
            return usage();
    }
    for (const Fuzzer& fuzzer : kFuzzers) {
        if (std::strcmp(arguments[1], fuzzer.name) != 0) continue;
        const double start = bw::now();
        try {
            const Outcomes outcomes = run_inputs(plan, fuzzer.most_seconds, fuzzer.make(plan));
            print(fuzzer.name, plan, outcomes, bw::now() - start);
            return 0;
        } catch (const std::exception& error) {
            std::fprintf(stderr, "bandweave-fuzz: %s\n", error.what());
            return 1;
        }
    }
    return usage();
}
