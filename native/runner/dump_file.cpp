#include "runner/dump_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "core/checksum.h"
#include "core/numerics.h"
#include "core/text.h"
#include "executor/check.h"
#include "kernels/pack.h"

namespace bw {

namespace {

constexpr char kMagic[8] = {'B', 'A', 'N', 'D', 'W', 'E', 'A', 'V'};
constexpr size_t kHeaderBytes = 64;
constexpr uint64_t kMostDescription = uint64_t{256} << 20;
constexpr int kMostContext = 1 << 23;
constexpr size_t kLongestName = 200;

struct File {
    std::FILE* file = nullptr;
    uint64_t bytes = 0;

    explicit File(const std::string& path) {
        // Not to wait for whoever would write to a pipe.
        const int descriptor = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (descriptor < 0) throw DumpError(path + ": cannot be opened");
        struct stat status{};
        const bool plain = fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
        file = plain ? fdopen(descriptor, "rb") : nullptr;
        if (!file) {
            close(descriptor);
            throw DumpError(path + ": is no plain file");
        }
        bytes = static_cast<uint64_t>(status.st_size);
    }
    ~File() { std::fclose(file); }
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    void read(uint64_t offset, void* out, size_t count) {
        if (offset > bytes || count > bytes - offset) throw DumpError("the file ends too early");
        if (std::fseek(file, static_cast<long>(offset), SEEK_SET) != 0 ||
            std::fread(out, 1, count, file) != count)
            throw DumpError("the file cannot be read");
    }
};

// Where bytes lie in the file, and their checksum.
struct Piece {
    uint64_t offset, bytes, sum;
};

// Takes values off the description; both are little-endian, as all processors here are.
class Cursor {
  public:
    explicit Cursor(const std::vector<uint8_t>& bytes) : bytes_(bytes) {}

    template <typename T>
    T take() {
        T value;
        if (bytes_.size() - at_ < sizeof value) throw DumpError("the description ends too early");
        std::memcpy(&value, bytes_.data() + at_, sizeof value);
        at_ += sizeof value;
        return value;
    }
    int number(int low, int high) {
        const auto value = take<int32_t>();
        if (value < low || value > high)
            throw DumpError("the description holds " + std::to_string(value) + " where " +
                            std::to_string(low) + " to " + std::to_string(high) + " makes sense");
        return value;
    }
    int size() { return number(1, kMostSize); }
    bool flag() { return number(0, 1) != 0; }
    // How many things of at least `each` bytes follow.
    size_t count(size_t each) {
        const auto value = take<uint32_t>();
        if (value > (bytes_.size() - at_) / each) throw DumpError("the description ends too early");
        return value;
    }
    std::vector<int> numbers(int low, int high) {
        std::vector<int> values(count(4));
        for (int& value : values) value = number(low, high);
        return values;
    }
    std::string text() {
        std::vector<char> letters(count(1));
        for (char& letter : letters) letter = take<char>();
        return printable(letters.data(), letters.size(), kLongestName);
    }
    Piece piece() {
        Piece p;
        p.offset = take<uint64_t>();
        p.bytes = take<uint64_t>();
        p.sum = take<uint64_t>();
        return p;
    }
    bool done() const { return at_ == bytes_.size(); }

  private:
    const std::vector<uint8_t>& bytes_;
    size_t at_ = 0;
};

void read_piece(File& file, const Piece& piece, void* out, size_t wanted, const char* what) {
    if (piece.bytes != wanted)
        throw DumpError(std::string(what) + " has " + std::to_string(piece.bytes) +
                        " bytes in the place of " + std::to_string(wanted));
    file.read(piece.offset, out, wanted);
    if (checksum(static_cast<const uint8_t*>(out), wanted) != piece.sum)
        throw DumpError(std::string(what) + " is damaged");
}

std::vector<uint8_t> read_description(File& file) {
    uint8_t head[kHeaderBytes];
    file.read(0, head, sizeof head);
    if (std::memcmp(head, kMagic, sizeof kMagic) != 0)
        throw DumpError("this is no dump of bandweave's, or one that was not finished");
    int32_t versions[2];
    uint64_t words[3];  // offset, bytes, checksum
    std::memcpy(versions, head + 8, sizeof versions);
    std::memcpy(words, head + 16, sizeof words);
    if (versions[0] != kDumpVersion)
        throw DumpError("the file's version is " + std::to_string(versions[0]) +
                        "; this runner reads " + std::to_string(kDumpVersion));
    if (versions[1] != kNumericsVersion)
        throw DumpError("the file's numerics version is " + std::to_string(versions[1]) +
                        "; this runner's is " + std::to_string(kNumericsVersion));
    if (words[1] > kMostDescription) throw DumpError("the description is too long");
    if (words[1] == 0) throw DumpError("the description is empty");
    std::vector<uint8_t> description(words[1]);
    read_piece(file, {words[0], words[1], words[2]}, description.data(), description.size(),
               "the description");
    return description;
}

View view(Cursor& in) {
    View v;
    v.buffer = in.number(-1, kMostSize);
    v.offset = in.number(0, kMostSize);
    v.width = in.number(0, kMostSize);
    return v;
}

Op read_op(Cursor& in) {
    Op op;
    op.kind = static_cast<OpKind>(in.number(0, static_cast<int>(OpKind::gather_logits)));
    op.name = in.text();
    op.a = view(in);
    op.b = view(in);
    op.out = view(in);
    op.matrix = in.number(-1, kMostSize);
    op.vector = in.number(-1, kMostSize);
    for (int* value : {&op.groups, &op.dim, &op.heads, &op.cache, &op.kv_heads, &op.window})
        *value = in.number(0, kMostSize);
    op.eps = in.take<float>();
    op.tag = in.take<uint32_t>();
    op.kv_map = in.numbers(0, kMostSize);
    op.nodes = in.numbers(0, kMostSize);
    op.contributors = in.numbers(0, kMostSize);
    const std::vector<int> owners = in.numbers(0, kMostSize);
    if (owners.size() % 3 != 0) throw DumpError("owners are no triples");
    for (size_t i = 0; i < owners.size(); i += 3)
        op.owners.push_back({owners[i], owners[i + 1], owners[i + 2]});
    return op;
}

}  // namespace

DumpFile read_dump(const std::string& path) {
    File file(path);
    const std::vector<uint8_t> description = read_description(file);
    Cursor in(description);
    DumpFile dump;
    Program& program = dump.program;
    program.hidden_size = in.size();
    program.vocab_size = in.size();
    program.cache.layers = in.number(1, kMostLayers);
    program.cache.kv_heads = in.number(1, kMostKvHeads);
    program.cache.dim = in.number(1, kMostHeadDim);
    dump.half_kv = in.flag();
    dump.context = in.number(1, kMostContext);
    dump.max_rows = in.number(1, kMostRows);
    program.inv_freq.resize(in.count(8));
    for (double& frequency : program.inv_freq) frequency = in.take<double>();
    dump.end_tokens = in.numbers(0, program.vocab_size - 1);
    for (size_t i = in.count(12); i > 0; i--) {
        Buffer buffer;
        buffer.width = in.size();
        buffer.grid = in.flag();
        buffer.logit_rows = in.flag();
        program.buffers.push_back(buffer);
    }
    std::vector<Piece> pieces;
    uint64_t total = 0;
    for (size_t i = in.count(40); i > 0; i--) {
        Matrix matrix;
        matrix.format = static_cast<Format>(in.number(0, 3));
        matrix.layout.k = in.size();
        matrix.layout.unit = in.size();
        matrix.outputs = in.size();
        pieces.push_back(in.piece());
        if (matrix.bytes() > file.bytes) throw DumpError("the file ends too early");
        total += (matrix.bytes() + 63) / 64 * 64;
        if (total > file.bytes + 64 * pieces.size()) throw DumpError("the file ends too early");
        program.matrices.push_back(matrix);
    }
    dump.arena = std::make_unique<Arena>(total);
    for (size_t i = 0; i < pieces.size(); i++) {
        Matrix& matrix = program.matrices[i];
        uint8_t* panels = dump.arena->take(matrix.bytes());
        read_piece(file, pieces[i], panels, matrix.bytes(), "a matrix");
        matrix.panels = panels;
    }
    for (size_t i = in.count(28); i > 0; i--) {
        const auto size = static_cast<size_t>(in.size());
        const Piece piece = in.piece();
        if (4 * size > file.bytes) throw DumpError("the file ends too early");
        program.vectors.emplace_back(size);
        read_piece(file, piece, program.vectors.back().data(), 4 * size, "a vector");
    }
    dump.embedding_source = static_cast<Source>(in.number(0, 2));
    const Piece piece = in.piece();
    const size_t each = dump.embedding_source == Source::f32 ? 4 : 2;
    const size_t bytes =
        each * static_cast<size_t>(program.vocab_size) * static_cast<size_t>(program.hidden_size);
    if (bytes > file.bytes) throw DumpError("the file ends too early");
    dump.embedding.resize(bytes);
    read_piece(file, piece, dump.embedding.data(), bytes, "the embedding table");
    for (size_t i = in.count(100); i > 0; i--) program.ops.push_back(read_op(in));
    if (!in.done()) throw DumpError("the description goes on after its end");
    if (program.ops.empty() || program.ops.back().kind != OpKind::gather_logits)
        throw DumpError("the program does not end with logits");
    try {
        check_program(program, dump.max_rows);
    } catch (const std::invalid_argument& error) {
        throw DumpError(error.what());
    }
    return dump;
}

void DumpFile::embed(int32_t token, float* out) const {
    const auto width = static_cast<size_t>(program.hidden_size);
    widen(embedding_source, embedding.data(), static_cast<size_t>(token) * width,
          program.hidden_size, out);
}

}  // namespace bw
