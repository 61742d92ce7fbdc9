#include "runner/dump_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "core/checksum.h"
#include "core/cursor.h"
#include "core/numerics.h"
#include "executor/check.h"
#include "executor/decode.h"
#include "kernels/pack.h"

namespace bw {

namespace {

constexpr char kMagic[8] = {'B', 'A', 'N', 'D', 'W', 'E', 'A', 'V'};
constexpr size_t kHeaderBytes = 64;
constexpr uint64_t kMostDescription = uint64_t{256} << 20;
constexpr int kMostContext = 1 << 23;

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

Piece take_piece(Cursor& in) {
    Piece piece{};
    piece.offset = in.take<uint64_t>();
    piece.bytes = in.take<uint64_t>();
    piece.sum = in.take<uint64_t>();
    return piece;
}

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

// All matrices lie in one arena; its size is believed once the file is known to be as large.
void read_matrices(File& file, Cursor& in, DumpFile& dump) {
    std::vector<Piece> pieces;
    uint64_t total = 0;
    for (Matrix& matrix : dump.program.matrices) {
        matrix.format = static_cast<Format>(in.number(0, kFormats - 1));
        pieces.push_back(take_piece(in));
        if (matrix.bytes() > file.bytes) throw DumpError("the file ends too early");
        total += (matrix.bytes() + 63) / 64 * 64;
        if (total > file.bytes + 64 * pieces.size()) throw DumpError("the file ends too early");
    }
    dump.arena = std::make_unique<Arena>(total);
    for (size_t i = 0; i < pieces.size(); i++) {
        Matrix& matrix = dump.program.matrices[i];
        uint8_t* panels = dump.arena->take(matrix.bytes());
        read_piece(file, pieces[i], panels, matrix.bytes(), "a matrix");
        matrix.panels = panels;
    }
}

void read_vectors(File& file, Cursor& in, DumpFile& dump) {
    for (Vector& vector : dump.program.vectors) {
        const Piece piece = take_piece(in);
        const auto size = static_cast<size_t>(vector.size);
        if (4 * size > file.bytes) throw DumpError("the file ends too early");
        vector.values.resize(size);
        read_piece(file, piece, vector.values.data(), 4 * size, "a vector");
    }
}

void read_embedding(File& file, Cursor& in, DumpFile& dump) {
    dump.embedding_source = static_cast<Source>(in.number(0, 2));
    const Piece piece = take_piece(in);
    const size_t each = dump.embedding_source == Source::f32 ? 4 : 2;
    const size_t bytes = each * static_cast<size_t>(dump.program.vocab_size) *
                         static_cast<size_t>(dump.program.hidden_size);
    if (bytes > file.bytes) throw DumpError("the file ends too early");
    dump.embedding.resize(bytes);
    read_piece(file, piece, dump.embedding.data(), bytes, "the embedding table");
}

void read_described(File& file, const std::vector<uint8_t>& description, DumpFile& dump) {
    Cursor in(description.data(), description.size(), "the description");
    const size_t length = in.count(1);
    dump.program = decode_program(in.bytes(length), length);
    if (dump.program.ops.empty() || dump.program.ops.back().kind != OpKind::gather_logits)
        throw DumpError("the program does not end with logits");
    check_mesh(dump.program, nullptr);
    dump.half_kv = in.flag();
    dump.context = in.number(1, kMostContext);
    dump.max_rows = in.number(1, kMostRows);
    dump.end_tokens = in.ints();
    for (int token : dump.end_tokens)
        if (token < 0 || token >= dump.program.vocab_size)
            throw DumpError("an end token is not in the vocabulary");
    read_matrices(file, in, dump);
    read_vectors(file, in, dump);
    read_embedding(file, in, dump);
    in.expect_end();
    check_program(dump.program, dump.max_rows);
}

}  // namespace

DumpFile read_dump(const std::string& path) {
    File file(path);
    const std::vector<uint8_t> description = read_description(file);
    DumpFile dump;
    try {
        read_described(file, description, dump);
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
