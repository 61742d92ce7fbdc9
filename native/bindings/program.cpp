// A node's program, decoded and checked, with its weights.
#include "bindings/bindings.h"
#include "executor/decode.h"

namespace bw {

namespace {

void give(Matrix& place, const Matrix& packed) {
    if (packed.layout.k != place.layout.k || packed.layout.unit != place.layout.unit ||
        packed.outputs != place.outputs)
        throw nb::value_error("a packed matrix has another shape than its program says");
    place = packed;
}

void give(Vector& place, const Floats& values) {
    if (values.size() != static_cast<size_t>(place.size))
        throw nb::value_error("a vector has another size than its program says");
    place.values.assign(values.data(), values.data() + values.size());
}

}  // namespace

void bind_program(nb::module_& m) {
    nb::class_<PyProgram>(m, "Program")
        .def(
            "__init__",
            [](PyProgram* self, nb::bytes encoded,
               std::vector<std::shared_ptr<PackedMatrix>> matrices, std::vector<Floats> vectors) {
                // First what can fail: nothing destroys an object whose __init__ has thrown.
                Program program =
                    decode_program(static_cast<const uint8_t*>(encoded.data()), encoded.size());
                if (matrices.size() != program.matrices.size() ||
                    vectors.size() != program.vectors.size())
                    throw nb::value_error("a program must have all of its weights");
                for (size_t i = 0; i < matrices.size(); i++)
                    give(program.matrices[i], matrices[i]->matrix);
                for (size_t i = 0; i < vectors.size(); i++) give(program.vectors[i], vectors[i]);
                new (self) PyProgram{std::move(program), std::move(matrices)};
            },
            "encoded"_a, "matrices"_a, "vectors"_a,
            "Of encoded bytes (programs/encoding.py), and its weights in their order.");
}

}  // namespace bw
