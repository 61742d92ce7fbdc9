// Matrices of packed weights, and the memory that they lie in.
#include <algorithm>
#include <iterator>
#include <optional>

#include "bindings/bindings.h"
#include "core/file_runs.h"
#include "core/float_mode.h"
#include "executor/place.h"
#include "kernels/pack.h"

namespace bw {

constexpr const char* kNames[kFormats] = {"f32",   "bf16", "q8",   "q4",   "mxfp4",  "nf4",
                                          "ulaw4", "q4_1", "q5_0", "q5_1", "iq4_nl", "q2_k",
                                          "q3_k",  "q4_k", "q5_k", "q6_k", "iq4_xs"};

Format format_of(const std::string& name) {
    for (size_t i = 0; i < kFormats; i++)
        if (name == kNames[i]) return static_cast<Format>(i);
    std::string names;
    for (const char* known : kNames) names += (names.empty() ? "" : ", ") + std::string(known);
    throw nb::value_error(("weight formats are " + names).c_str());
}

namespace {

void check_whole_blocks(const Matrix& matrix) {
    const int columns = whole_columns(matrix.format);
    if (matrix.layout.k % columns == 0 && matrix.layout.unit % columns == 0) return;
    const std::string name = name_of(matrix.format), whole = std::to_string(columns);
    throw nb::value_error((name + " has blocks of " + whole + " columns, which " +
                           std::to_string(matrix.layout.k) + " columns in units of " +
                           std::to_string(matrix.layout.unit) +
                           " would cut; choose units of whole blocks, or another format for this "
                           "matrix")
                              .c_str());
}

}  // namespace

const char* name_of(Format format) { return kNames[static_cast<size_t>(format)]; }

PackedMatrix::PackedMatrix(std::shared_ptr<Arena> owner, const std::string& format, int outputs,
                           int inputs, int unit)
    : arena(std::move(owner)) {
    matrix.format = format_of(format);
    matrix.layout = {inputs, unit};
    matrix.outputs = outputs;
    if (outputs < 1 || inputs < 1 || unit < 1)
        throw nb::value_error("a matrix needs outputs, inputs and a unit of at least 1");
    check_whole_blocks(matrix);
    panels = arena->take(matrix.bytes());
    matrix.panels = panels;
}

namespace {

// GGUF's types by name, from Source::q4_0 on.
constexpr const char* kBlockNames[] = {"q4_0", "q8_0", "mxfp4", "q4_1", "q5_0", "q5_1",  "iq4_nl",
                                       "q2_k", "q3_k", "q4_k",  "q5_k", "q6_k", "iq4_xs"};
constexpr int kFirstBlocks = static_cast<int>(Source::q4_0);
static_assert(std::size(kBlockNames) == kSources - kFirstBlocks);

Source block_source_of(const std::string& name) {
    std::string names;
    for (size_t i = 0; i < std::size(kBlockNames); i++) {
        if (name == kBlockNames[i]) return static_cast<Source>(kFirstBlocks + static_cast<int>(i));
        names += (names.empty() ? "" : ", ") + std::string(kBlockNames[i]);
    }
    throw nb::value_error(("stored types are " + names).c_str());
}

// `stored` names the type of GGUF's blocks; it is empty where the values are plain numbers.
Source source_of(const Values& values, const std::string& stored) {
    if (!stored.empty()) {
        const Source source = block_source_of(stored);
        if (values.dtype() != nb::dtype<uint8_t>() || values.ndim() != 2 ||
            values.shape(1) % block_size(source).bytes != 0)
            throw nb::value_error(("rows of " + stored + " are uint8, of whole blocks of " +
                                   std::to_string(block_size(source).bytes) + " bytes")
                                      .c_str());
        return source;
    }
    if (values.dtype() == nb::dtype<float>()) return Source::f32;
    if (values.dtype() == nb::dtype<uint16_t>()) return Source::bf16;
    if (values.dtype().code == static_cast<uint8_t>(nb::dlpack::dtype_code::Float) &&
        values.dtype().bits == 16)
        return Source::f16;
    throw nb::value_error(
        "weights must be float32, float16, uint16 holding bf16, or blocks whose stored type is "
        "named");
}

// How a file stores values: the name of plain numbers, or of a type of GGUF's blocks.
Source stored_source_of(const std::string& name) {
    if (name == "f32") return Source::f32;
    if (name == "bf16") return Source::bf16;
    if (name == "f16") return Source::f16;
    return block_source_of(name);
}

// Rows that are read together, before they are packed: what stays in a processor's own cache, but
// whole panels of all but very long rows.
size_t rows_at_once(size_t pitch) {
    constexpr size_t kBytes = size_t{256} << 10, kMostBytes = size_t{4} << 20;
    const size_t rows = kBytes / pitch / kPanel * kPanel;
    if (rows > 0) return rows;
    return kPanel * pitch <= kMostBytes ? kPanel : std::max<size_t>(1, kMostBytes / pitch);
}

// How many weights a row of stored values has.
size_t columns_of(const Values& values, Source source) {
    if (values.ndim() < 2) return 1;
    const BlockSize size = block_size(source);
    return stores_blocks(source) ? values.shape(1) / size.bytes * static_cast<size_t>(size.columns)
                                 : values.shape(1);
}

// How `rows` rows of `width` weights of a tensor fall into the blocks that content is compared by.
// Sums are of the bytes as they are stored.
ContentSums sums_of(size_t rows, size_t width, Source source, uint64_t first_row,
                    uint64_t block_rows, size_t block_columns) {
    if ((block_rows == 0) == (block_columns == 0))
        throw nb::value_error("blocks are runs of rows or of columns");
    const BlockSize size = block_size(source);
    const auto whole = static_cast<size_t>(size.columns);
    if (block_columns % whole != 0)
        throw nb::value_error("runs of columns must hold whole stored blocks");
    return ContentSums({block_rows, block_columns / whole * size.bytes}, first_row, rows,
                       width / whole * size.bytes);
}

Sums content_sums(const Values& values, uint64_t first_row, uint64_t block_rows,
                  size_t block_columns, const std::string& stored) {
    const bool vector = values.ndim() == 1;
    if (values.ndim() < 1 || values.ndim() > 2 || (!vector && values.stride(1) != 1))
        throw nb::value_error("values are rows, each of them contiguous");
    const Source source = source_of(values, stored);
    const size_t item = stored_bytes(source);
    ContentSums sums = sums_of(values.shape(0), columns_of(values, source), source, first_row,
                               block_rows, block_columns);
    const auto* bytes = static_cast<const uint8_t*>(values.data());
    const size_t stride = static_cast<size_t>(values.stride(0)) * item;
    const size_t rows = values.shape(0);
    {
        nb::gil_scoped_release released;
        for (size_t row = 0; row < rows; row++) sums.add(row, bytes + row * stride);
    }
    return to_numpy(sums.finish());
}

nb::ndarray<nb::numpy, float, nb::ndim<2>> widen_values(const std::string& stored,
                                                        const Values& values) {
    const Source source = source_of(values, stored);
    if (!stores_blocks(source)) throw nb::value_error("the stored type of blocks must be named");
    if (values.stride(1) != 1 && values.shape(1) > 1)
        throw nb::value_error("rows must be contiguous");
    const size_t rows = values.shape(0), columns = columns_of(values, source);
    std::vector<float> wide(rows * columns);
    bool finite;
    {
        nb::gil_scoped_release released;
        const FloatMode mode;
        const auto* bytes = static_cast<const uint8_t*>(values.data());
        for (size_t row = 0; row < rows; row++)
            widen_blocks(source, bytes + row * static_cast<size_t>(values.stride(0)),
                         static_cast<int>(columns), wide.data() + row * columns);
        finite = all_finite(wide.data(), wide.size());
    }
    if (!finite) throw nb::value_error("holds a NaN or an infinity");
    return to_numpy(std::move(wide), rows, columns);
}

}  // namespace

Sums PackedMatrix::pack(int first, const Values& values, uint64_t first_row, uint64_t block_rows,
                        size_t block_columns, const std::string& stored) {
    if (values.ndim() != 2) throw nb::value_error("weights are rows");
    const auto rows = static_cast<int>(values.shape(0));
    const Source source = source_of(values, stored);
    if (first < 0 || first + rows > matrix.outputs ||
        columns_of(values, source) != static_cast<size_t>(matrix.layout.k))
        throw nb::value_error("the rows do not fit the matrix");
    if (values.stride(1) != 1 && values.shape(1) > 1)
        throw nb::value_error("rows must be contiguous");
    std::optional<ContentSums> sums;
    if (block_rows || block_columns)
        sums = sums_of(values.shape(0), columns_of(values, source), source, first_row, block_rows,
                       block_columns);
    std::string wrong;
    {
        nb::gil_scoped_release released;
        const FloatMode mode;
        wrong = pack_rows(matrix.format, matrix.layout, panels, first, source, values.data(),
                          static_cast<size_t>(values.stride(0)), rows, sums ? &*sums : nullptr);
    }
    if (!wrong.empty()) throw nb::value_error(wrong.c_str());
    return to_numpy(sums ? sums->finish() : std::vector<uint64_t>());
}

std::optional<Sums> PackedMatrix::pack_file(int first, int descriptor, uint64_t start,
                                            uint64_t stride, int rows, uint64_t first_row,
                                            uint64_t block_rows, size_t block_columns,
                                            const std::string& stored) {
    const Source source = stored_source_of(stored);
    const BlockSize size = block_size(source);
    const auto width = static_cast<size_t>(matrix.layout.k);
    const auto whole = static_cast<size_t>(size.columns);
    const size_t length = width / whole * size.bytes;
    if (first < 0 || rows < 0 || rows > matrix.outputs - first || width % whole != 0 ||
        stride < length || (stride - length) % stored_bytes(source) != 0)
        throw nb::value_error("the rows do not fit the matrix");
    const auto count = static_cast<size_t>(rows);
    std::optional<ContentSums> sums;
    if (block_rows || block_columns)
        sums = sums_of(count, width, source, first_row, block_rows, block_columns);
    std::string wrong;
    bool whole_file = true;
    {
        nb::gil_scoped_release released;
        const FloatMode mode;
        FileRuns runs(descriptor, start, stride, length, count);
        const size_t most = rows_at_once(runs.pitch());
        std::vector<uint8_t> buffer(std::min(most, count) * runs.pitch());
        const size_t items = runs.pitch() / stored_bytes(source);
        for (size_t done = 0; done < count && wrong.empty();) {
            // To the end of a panel where it can be.
            const size_t output = static_cast<size_t>(first) + done;
            size_t some = most - (output + most) % kPanel;
            if (most < kPanel) some = most;
            some = std::min(some, count - done);
            if (!(whole_file = runs.read(done, some, buffer.data()))) break;
            wrong =
                pack_rows(matrix.format, matrix.layout, panels, static_cast<int>(output), source,
                          buffer.data(), items, static_cast<int>(some), sums ? &*sums : nullptr);
            if (sums) sums->go_on(some);
            done += some;
        }
    }
    if (!whole_file) return std::nullopt;
    if (!wrong.empty()) throw nb::value_error(wrong.c_str());
    return to_numpy(sums ? sums->finish() : std::vector<uint64_t>());
}

void PackedMatrix::release() { arena->forget(panels, matrix.bytes()); }

void bind_matrix(nb::module_& m) {
    nb::class_<Arena>(m, "Arena")
        .def(nb::init<size_t>(), "bytes"_a)
        .def_prop_ro("size", &Arena::size)
        .def_prop_ro("used", &Arena::used);

    nb::class_<PackedMatrix>(m, "Matrix")
        .def(nb::init<std::shared_ptr<Arena>, const std::string&, int, int, int>(), "arena"_a,
             "format"_a, "outputs"_a, "inputs"_a, "unit"_a)
        .def("pack", &PackedMatrix::pack, "first_output"_a, "values"_a, "first_row"_a = 0,
             "block_rows"_a = 0, "block_columns"_a = 0, "source"_a = "",
             "Packs rows [n, inputs] and gives their content sums, as content_sums does, where "
             "blocks are asked for; ValueError says what is wrong with the values. With the name "
             "of a GGUF type as source they are uint8 [n, row_bytes]: the format that runs it as "
             "it is stored keeps the very codes and scales where no unit cuts a block, any other "
             "is made of what widen_blocks gives.")
        .def("pack_file", &PackedMatrix::pack_file, "first_output"_a, "descriptor"_a, "start"_a,
             "stride"_a, "rows"_a, "first_row"_a = 0, "block_rows"_a = 0, "block_columns"_a = 0,
             "source"_a = "f32",
             "Packs rows of an open file, the first at byte `start` and `stride` bytes from one to "
             "the next, as `pack` does rows in memory, and reads no others; `source` is f32, f16, "
             "bf16 or a GGUF type. None where the file cannot be read so far.")
        .def(
            "clear",
            [](PackedMatrix& self) {
                nb::gil_scoped_release released;
                clear_panels(self.matrix.format, self.matrix.layout, self.matrix.num_panels(),
                             self.panels);
            },
            "Fills the padding; before the first rows are packed.")
        .def("release", &PackedMatrix::release,
             "Gives the memory back to the system; what the matrix holds is anything afterwards.")
        .def_prop_ro("format", [](const PackedMatrix& self) { return name_of(self.matrix.format); })
        .def_prop_ro("nbytes", [](const PackedMatrix& self) { return self.matrix.bytes(); })
        .def_prop_ro(
            "panels",
            [](PackedMatrix& self) {
                return nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>(
                    self.panels, {self.matrix.bytes()}, nb::find(self));
            },
            "The packed bytes.");

    m.def("content_sums", &content_sums, "values"_a, "first_row"_a, "block_rows"_a = 0,
          "block_columns"_a = 0, "source"_a = "",
          "Sums that tell the content of a tensor's blocks (core/content.h) of rows [n, width] or "
          "[n], the first of which is first_row: one for each run of block_rows rows, or of "
          "block_columns columns. Sums of pieces of a block add up modulo 2^64. With a GGUF type "
          "as source rows are uint8 [n, row_bytes], and columns are weights, whole blocks of "
          "them.");
    m.def(
        "widen_blocks", &widen_values, "source"_a, "values"_a,
        "The weights of rows of a GGUF type's blocks, uint8 [n, row_bytes], as float32; ValueError "
        "where one is not finite.");
    m.def(
        "place",
        [](const std::vector<std::shared_ptr<PackedMatrix>>& matrices,
           const std::vector<int>& cpus) {
            std::vector<Matrix> plain;
            for (const auto& matrix : matrices) plain.push_back(matrix->matrix);
            nb::gil_scoped_release released;
            place_panels(plain, cpus);
        },
        "matrices"_a, "cpus"_a,
        "Puts the pages of matrices that are still empty where these processors' threads read.");
    m.def(
        "matrix_bytes",
        [](const std::string& format, int outputs, int inputs, int unit) {
            Matrix matrix;
            matrix.format = format_of(format);
            matrix.layout = {inputs, unit};
            matrix.outputs = outputs;
            if (inputs < 1 || unit < 1)
                throw nb::value_error("a matrix needs inputs and a unit of at least 1");
            check_whole_blocks(matrix);
            return matrix.bytes();
        },
        "format"_a, "outputs"_a, "inputs"_a, "unit"_a, "Packed size of a matrix in bytes.");
}

}  // namespace bw
