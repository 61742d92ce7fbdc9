// What the parts of the Python module share: its types of arguments, and what each part adds.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/arena.h"
#include "executor/program.h"
#include "kernels/kernels.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace bw {

using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const int32_t, nb::c_contig, nb::device::cpu>;
using Values =
    nb::ndarray<nb::device::cpu, nb::ro>;  // of a checkpoint: float32, float16, bf16 bits
using Sums = nb::ndarray<nb::numpy, uint64_t, nb::ndim<1>>;

// A weight format by name; `nb::value_error` for another.
Format format_of(const std::string& name);
const char* name_of(Format format);

// A matrix in an arena, which it keeps alive.
struct PackedMatrix {
    std::shared_ptr<Arena> arena;
    Matrix matrix;
    uint8_t* panels;

    PackedMatrix(std::shared_ptr<Arena> owner, const std::string& format, int outputs, int inputs,
                 int unit);
    Sums pack(int first, const Values& values, uint64_t first_row, uint64_t block_rows,
              size_t block_columns, const std::string& stored);
    std::optional<Sums> pack_file(int first, int descriptor, uint64_t start, uint64_t stride,
                                  int rows, uint64_t first_row, uint64_t block_rows,
                                  size_t block_columns, const std::string& stored);
    void release();
};

struct PyProgram {
    Program program;
    std::vector<std::shared_ptr<PackedMatrix>> matrices;  // kept alive
};

inline Sums to_numpy(std::vector<uint64_t>&& values) {
    auto* owned = new std::vector<uint64_t>(std::move(values));
    nb::capsule owner(owned,
                      [](void* p) noexcept { delete static_cast<std::vector<uint64_t>*>(p); });
    return Sums(owned->data(), {owned->size()}, owner);
}

inline nb::ndarray<nb::numpy, float, nb::ndim<2>> to_numpy(std::vector<float>&& values, size_t rows,
                                                           size_t width) {
    auto* owned = new std::vector<float>(std::move(values));
    nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
    return nb::ndarray<nb::numpy, float, nb::ndim<2>>(owned->data(), {rows, width}, owner);
}

void bind_kernels(nb::module_& m);
void bind_matrix(nb::module_& m);
void bind_program(nb::module_& m);
void bind_exchange(nb::module_& m);
void bind_executor(nb::module_& m);  // after the program and the exchange, which its types name

}  // namespace bw
