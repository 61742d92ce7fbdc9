// Matrices of packed weights, and the memory that they lie in.
#include <optional>

#include "bindings/bindings.h"
#include "core/float_mode.h"
#include "executor/place.h"
#include "kernels/pack.h"

namespace bw {

constexpr const char* kNames[kFormats] = {"f32", "bf16", "q8", "q4", "mxfp4", "nf4", "ulaw4"};

Format format_of(const std::string& name) {
    for (size_t i = 0; i < kFormats; i++)
        if (name == kNames[i]) return static_cast<Format>(i);
    throw nb::value_error("weight formats are f32, bf16, q8, q4, mxfp4, nf4 and ulaw4");
}

const char* name_of(Format format) { return kNames[static_cast<size_t>(format)]; }

PackedMatrix::PackedMatrix(std::shared_ptr<Arena> owner, const std::string& format, int outputs,
                           int inputs, int unit)
    : arena(std::move(owner)) {
    matrix.format = format_of(format);
    matrix.layout = {inputs, unit};
    matrix.outputs = outputs;
    if (outputs < 1 || inputs < 1 || unit < 1)
        throw nb::value_error("a matrix needs outputs, inputs and a unit of at least 1");
    panels = arena->take(matrix.bytes());
    matrix.panels = panels;
}

namespace {

Source source_of(const Values& values) {
    if (values.dtype() == nb::dtype<float>()) return Source::f32;
    if (values.dtype() == nb::dtype<uint16_t>()) return Source::bf16;
    if (values.dtype().code == static_cast<uint8_t>(nb::dlpack::dtype_code::Float) &&
        values.dtype().bits == 16)
        return Source::f16;
    throw nb::value_error("weights must be float32, float16, or uint16 holding bf16");
}

// How the values, rows of a tensor, fall into the blocks that content is compared by.
ContentSums sums_of(const Values& values, size_t item, uint64_t first_row, uint64_t block_rows,
                    size_t block_columns) {
    if ((block_rows == 0) == (block_columns == 0))
        throw nb::value_error("blocks are runs of rows or of columns");
    const size_t width = values.ndim() == 2 ? values.shape(1) : 1;
    return ContentSums({block_rows, block_columns * item}, first_row, values.shape(0),
                       width * item);
}

Sums content_sums(const Values& values, uint64_t first_row, uint64_t block_rows,
                  size_t block_columns) {
    const bool vector = values.ndim() == 1;
    if (values.ndim() < 1 || values.ndim() > 2 || (!vector && values.stride(1) != 1))
        throw nb::value_error("values are rows, each of them contiguous");
    const size_t item = stored_bytes(source_of(values));
    ContentSums sums = sums_of(values, item, first_row, block_rows, block_columns);
    const auto* bytes = static_cast<const uint8_t*>(values.data());
    const size_t stride = static_cast<size_t>(values.stride(0)) * item;
    const size_t rows = values.shape(0);
    {
        nb::gil_scoped_release released;
        for (size_t row = 0; row < rows; row++) sums.add(row, bytes + row * stride);
    }
    return to_numpy(sums.finish());
}

}  // namespace

Sums PackedMatrix::pack(int first, const Values& values, uint64_t first_row, uint64_t block_rows,
                        size_t block_columns) {
    if (values.ndim() != 2) throw nb::value_error("weights are rows");
    const auto rows = static_cast<int>(values.shape(0));
    if (first < 0 || first + rows > matrix.outputs ||
        static_cast<int>(values.shape(1)) != matrix.layout.k)
        throw nb::value_error("the rows do not fit the matrix");
    if (values.stride(1) != 1 && values.shape(1) > 1)
        throw nb::value_error("rows must be contiguous");
    const Source source = source_of(values);
    std::optional<ContentSums> sums;
    if (block_rows || block_columns)
        sums = sums_of(values, stored_bytes(source), first_row, block_rows, block_columns);
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
             "block_rows"_a = 0, "block_columns"_a = 0,
             "Packs rows [n, inputs] and gives their content sums, as content_sums does, where "
             "blocks are asked for; ValueError says what is wrong with the values.")
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
          "block_columns"_a = 0,
          "Sums that tell the content of a tensor's blocks (core/content.h) of rows [n, width] or "
          "[n], the first of which is first_row: one for each run of block_rows rows, or of "
          "block_columns columns. Sums of pieces of a block add up modulo 2^64.");
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
            return matrix.bytes();
        },
        "format"_a, "outputs"_a, "inputs"_a, "unit"_a, "Packed size of a matrix in bytes.");
}

}  // namespace bw
