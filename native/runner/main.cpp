// bandweave-runner: runs a dumped program without Python, or checks this machine's kernels.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>

#include "core/crc32c.h"
#include "core/numerics.h"
#include "kernels/isa.h"
#include "runner/generate.h"
#include "verify/golden.h"

namespace {

using namespace bw;

constexpr int kMistake = 2, kFailure = 1;

constexpr const char* kUsage =
    "usage: bandweave-runner run FILE --tokens 1,2,3 [--max-tokens N] [--threads N] [--isa NAME]\n"
    "                            [--subnormals kept|flushed]\n"
    "       bandweave-runner verify [--subnormals kept|flushed]\n"
    "       bandweave-runner isa\n"
    "\n"
    "run     goes on with a prompt of token ids, greedily, and prints one JSON object\n"
    "verify  compares what every kernel of this processor's variants computes with stored "
    "digests,\n"
    "        and checksums with the standard's\n"
    "isa     names the kernel variants that this processor can run, the fastest first\n"
    "\n"
    "Whether subnormal numbers are flushed to zero must not show in what is computed.\n";

int number(const char* name, const char* text, int low, int high) {
    char* end = nullptr;
    const long value = std::strtol(text, &end, 10);
    if (end == text || *end != '\0' || value < low || value > high)
        throw std::invalid_argument(std::string(name) + " is '" + text + "'; it must be " +
                                    std::to_string(low) + " to " + std::to_string(high));
    return static_cast<int>(value);
}

std::vector<int32_t> token_list(const char* text) {
    std::vector<int32_t> tokens;
    std::string word;
    for (const char* at = text;; at++) {
        if (*at != ',' && *at != '\0') {
            word += *at;
            continue;
        }
        tokens.push_back(number("a token of --tokens", word.c_str(), 0, 1 << 28));
        word.clear();
        if (*at == '\0') return tokens;
    }
}

Subnormals subnormals_of(const std::string& name) {
    if (name == "kept") return Subnormals::kept;
    if (name == "flushed") return Subnormals::flushed;
    throw std::invalid_argument("--subnormals is '" + name + "'; it must be kept or flushed");
}

int run(int count, char** arguments) {
    if (count < 1) throw std::invalid_argument("name the dumped file");
    std::vector<int32_t> prompt;
    GenerateOptions options;
    std::string isa;
    for (int i = 1; i < count; i += 2) {
        const char* name = arguments[i];
        if (i + 1 >= count) throw std::invalid_argument(std::string(name) + " needs a value");
        const char* value = arguments[i + 1];
        if (std::strcmp(name, "--tokens") == 0)
            prompt = token_list(value);
        else if (std::strcmp(name, "--max-tokens") == 0)
            options.max_tokens = number(name, value, 1, 1 << 28);
        else if (std::strcmp(name, "--threads") == 0)
            options.threads = number(name, value, 1, 1024);
        else if (std::strcmp(name, "--isa") == 0)
            isa = value;
        else if (std::strcmp(name, "--subnormals") == 0)
            options.subnormals = subnormals_of(value);
        else
            throw std::invalid_argument(std::string("there is no option ") + name);
    }
    options.kernels = &find_kernels(isa);
    const DumpFile dump = read_dump(arguments[0]);
    const Answer answer = generate(dump, prompt, options);
    std::printf("{\"tokens\": [");
    for (size_t i = 0; i < answer.tokens.size(); i++)
        std::printf("%s%d", i ? ", " : "", static_cast<int>(answer.tokens[i]));
    std::printf(
        "], \"logits_digest\": \"%s\", \"numerics_version\": %d, \"isa\": \"%s\", "
        "\"threads\": %d, \"prefill_seconds\": %.6f, \"decode_seconds\": %.6f}\n",
        answer.logits_digest.c_str(), kNumericsVersion, options.kernels->name, options.threads,
        answer.prefill_seconds, answer.decode_seconds);
    return 0;
}

int verify(int count, char** arguments) {
    Subnormals subnormals = Subnormals::kept;
    if (count == 2 && std::strcmp(arguments[0], "--subnormals") == 0)
        subnormals = subnormals_of(arguments[1]);
    else if (count > 0)
        throw std::invalid_argument("verify takes --subnormals kept or flushed");
    bool all = true;
    for (const Kernels* kernels : usable_kernels())
        for (const Golden& one : golden(*kernels, subnormals)) {
            all &= one.same();
            std::printf("%-13s %-23s %016" PRIx64 " %s\n", kernels->name, one.what.c_str(),
                        one.digest, one.same() ? "same" : "DIFFERENT");
        }
    for (const Crc32cVariant& variant : crc32c_variants()) {
        const bool same = crc32c_holds(variant);
        all &= same;
        std::printf("crc32c %s %s\n", variant.name, same ? "same" : "DIFFERENT");
    }
    return all ? 0 : kFailure;
}

int list() {
    for (const Kernels* kernels : usable_kernels()) std::printf("%s\n", kernels->name);
    return 0;
}

}  // namespace

int main(int count, char** arguments) {
    const std::string command = count > 1 ? arguments[1] : "";
    try {
        if (command == "run") return run(count - 2, arguments + 2);
        if (command == "verify") return verify(count - 2, arguments + 2);
        if (command == "isa") return list();
        std::fputs(kUsage, command == "--help" ? stdout : stderr);
        return command == "--help" ? 0 : kMistake;
    } catch (const std::invalid_argument& error) {
        std::fprintf(stderr, "bandweave-runner: %s\n", error.what());
        return kMistake;
    } catch (const DumpError& error) {
        std::fprintf(stderr, "bandweave-runner: %s\n", error.what());
        return kMistake;
    } catch (const std::bad_alloc&) {
        std::fprintf(stderr, "bandweave-runner: out of memory\n");
        return kMistake;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "bandweave-runner: %s\n", error.what());
        return kFailure;
    }
}
