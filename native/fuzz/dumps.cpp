// Dumps whose description was changed and whose checksum was mended, so that they get past it: they
// are refused, or run.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>

#include "core/checksum.h"
#include "exchange/frame.h"
#include "fuzz/run.h"
#include "kernels/isa.h"
#include "runner/generate.h"

namespace bw::fuzz {

namespace {

constexpr size_t kPiece = 16;  // where the header says where the description lies

// A dump in two parts: all before the description, and the description, which ends the file.
struct Seed {
    std::vector<uint8_t> pieces, description;
};

Seed read_seed(const std::string& path) {
    std::FILE* file = std::fopen(path.c_str(), "rb");
    if (!file) throw std::runtime_error(path + " cannot be opened");
    std::vector<uint8_t> bytes;
    uint8_t some[4096];
    for (size_t n; (n = std::fread(some, 1, sizeof some, file)) > 0;)
        bytes.insert(bytes.end(), some, some + n);
    std::fclose(file);
    uint64_t words[2] = {};
    if (bytes.size() >= 64) std::memcpy(words, bytes.data() + kPiece, sizeof words);
    if (words[0] < 64 || words[0] + words[1] != bytes.size())
        throw std::runtime_error(path + " is no dump");
    const auto at = bytes.begin() + static_cast<std::ptrdiff_t>(words[0]);
    return {{bytes.begin(), at}, {at, bytes.end()}};
}

void change_byte(Random& random, std::vector<uint8_t>& bytes) {
    uint8_t& byte = bytes[random.below(bytes.size())];
    byte = random.pick<uint8_t>({0, 1, 0x7f, 0x80, 0xff,
                                 static_cast<uint8_t>(byte ^ (1u << random.below(8))),
                                 static_cast<uint8_t>(random.bits())});
}

// Descriptions are made of ints, but for their names and lists of bytes.
void change_number(Random& random, std::vector<uint8_t>& bytes) {
    if (bytes.size() < 8) return;
    const auto place = [&] { return bytes.data() + random.below(bytes.size() - 4); };
    uint8_t* at = place();
    int32_t own, other;
    std::memcpy(&own, at, 4);
    std::memcpy(&other, place(), 4);
    const auto bits = static_cast<uint32_t>(own);
    const int32_t value = random.pick<int32_t>(
        {0, 1, -1, INT_MAX, INT_MIN, 1 << 28, (1 << 28) + 1, 1 << 20, other,
         static_cast<int32_t>(bits + 1), static_cast<int32_t>(bits - 1),
         static_cast<int32_t>(bits * 2), static_cast<int32_t>(bits + 16), random.between(0, 600)});
    std::memcpy(at, &value, 4);
}

void change_length(Random& random, std::vector<uint8_t>& bytes) {
    const auto from = static_cast<std::ptrdiff_t>(random.below(bytes.size()));
    const auto left = static_cast<std::ptrdiff_t>(bytes.size()) - from;
    const auto count = std::min<std::ptrdiff_t>(left, random.pick<int>({1, 4, 12, 100, 4000}));
    const std::vector<uint8_t> some(bytes.begin() + from, bytes.begin() + from + count);
    if (random.chance(50))
        bytes.erase(bytes.begin() + from, bytes.begin() + from + count);
    else
        bytes.insert(bytes.begin() + from, some.begin(), some.end());
}

std::vector<uint8_t> mutate(Random& random, const Seed& seed) {
    std::vector<uint8_t> description = seed.description;
    for (int turn = random.pick<int>({0, 1, 1, 1, 2, 2, 4}); turn > 0; turn--) {
        const int how = random.between(0, 9);
        if (how < 3)
            change_byte(random, description);
        else if (how < 9)
            change_number(random, description);
        else
            change_length(random, description);
        if (description.empty()) break;
    }
    return description;
}

// A file in memory, by a path.
class MemoryFile {
  public:
    MemoryFile() : descriptor_(memfd_create("dump", MFD_CLOEXEC)) {
        if (descriptor_ < 0) throw std::runtime_error("no memory for a file");
    }
    ~MemoryFile() { close(descriptor_); }
    void write(const Seed& seed, const std::vector<uint8_t>& description) {
        std::vector<uint8_t> bytes = seed.pieces;
        const uint64_t words[3] = {bytes.size(), description.size(),
                                   checksum(description.data(), description.size())};
        std::memcpy(bytes.data() + kPiece, words, sizeof words);
        bytes.insert(bytes.end(), description.begin(), description.end());
        const auto size = static_cast<ssize_t>(bytes.size());
        if (ftruncate(descriptor_, 0) != 0 ||
            pwrite(descriptor_, bytes.data(), bytes.size(), 0) != size)
            throw std::runtime_error("no memory for a file");
    }
    std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

  private:
    const int descriptor_;
};

std::string run(Random& random, const std::string& path, bool changed,
                const std::vector<const Kernels*>& kernels) {
    try {
        const DumpFile dump = read_dump(path);
        GenerateOptions options;
        options.max_tokens = random.between(1, 3);
        options.threads = random.between(1, 2);
        options.kernels = kernels[random.below(kernels.size())];
        std::vector<int32_t> prompt;
        for (int i = random.between(1, 5); i > 0; i--)
            prompt.push_back(random.between(0, std::min(dump.program.vocab_size, 4) - 1));
        generate(dump, prompt, options);
        return "accepted: ran";
    } catch (const DumpError& error) {
        if (!changed) throw Wrong{error.what()};
        return "refused: " + kind_of_error(error.what());
    } catch (const std::invalid_argument& error) {
        if (!changed) throw Wrong{error.what()};
        return "refused: " + kind_of_error(error.what());
    } catch (const StepError& error) {
        if (!changed) throw Wrong{error.what()};
        return "accepted: " + kind_of_error(error.what());
    } catch (const std::bad_alloc&) {
        if (!changed) throw Wrong{"out of memory"};
        return "refused: out of memory";
    }
}

}  // namespace

Input mutated_dumps(const Plan& plan) {
    if (plan.files.empty()) throw std::runtime_error("name the dumps to begin with");
    auto seeds = std::make_shared<std::vector<Seed>>();
    for (const std::string& path : plan.files) seeds->push_back(read_seed(path));
    auto file = std::make_shared<MemoryFile>();
    return [seeds, file, kernels = usable_kernels()](Random& random) {
        const Seed& seed = (*seeds)[random.below(seeds->size())];
        const std::vector<uint8_t> description = mutate(random, seed);
        file->write(seed, description);
        return run(random, file->path(), description != seed.description, kernels);
    };
}

}  // namespace bw::fuzz
