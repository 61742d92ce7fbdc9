// The kernels as Python asks for them: variants, checks of them, sizes, plain reads.
#include "bindings/bindings.h"
#include "core/checksum.h"
#include "core/crc32c.h"
#include "core/float_mode.h"
#include "core/numerics.h"
#include "executor/check.h"
#include "kernels/isa.h"
#include "probe/plain_read.h"
#include "verify/golden.h"

namespace bw {

namespace {

Subnormals subnormals_of(bool flush_to_zero) {
    return flush_to_zero ? Subnormals::flushed : Subnormals::kept;
}

}  // namespace

void bind_kernels(nb::module_& m) {
    m.def(
        "isa_variants",
        [] {
            std::vector<std::string> names;
            for (const Kernels* k : usable_kernels()) names.emplace_back(k->name);
            return names;
        },
        "The ISA variants that this processor can run, the fastest first.");
    m.def(
        "golden",
        [](const std::string& isa, bool flush_to_zero) {
            std::vector<std::tuple<std::string, uint64_t, uint64_t>> found;
            for (const Golden& one : golden(find_kernels(isa), subnormals_of(flush_to_zero)))
                found.emplace_back(one.what, one.digest, one.expected);
            return found;
        },
        "isa"_a, "flush_to_zero"_a = false, nb::call_guard<nb::gil_scoped_release>(),
        "What every kernel of a variant makes of fixed numbers: name, digest, and what it must "
        "be, also where subnormals are flushed to zero.");
    m.def(
        "numerics_version", [] { return kNumericsVersion; },
        "The version of the numerics that the kernels follow.");
    nb::class_<PlainRead>(m, "PlainRead")
        .def(nb::init<int, size_t, const std::vector<int>&>(), "threads"_a, "bytes"_a,
             "cpus"_a = std::vector<int>{}, nb::call_guard<nb::gil_scoped_release>())
        .def("bytes_per_s", &PlainRead::bytes_per_s, "threads"_a, "rounds"_a,
             nb::call_guard<nb::gil_scoped_release>(),
             "What so many of the threads read together, over several reads.");
    m.attr("PAGE_SIZE") = kPage;
    m.def(
        "kv_head_bytes",
        [](int dim, bool half) {
            if (dim < 1 || dim > kMostHeadDim)
                throw nb::value_error("a head has 1 to 8192 elements");
            return (kv_head_bytes(dim, half) + 63) / 64 * 64;
        },
        "dim"_a, "half"_a, "Bytes of one KV head in one page.");
    m.def(
        "latent_page_bytes",
        [](int k_dim, bool half) {
            if (k_dim < 1 || k_dim > kMostHeadDim)
                throw nb::value_error("a head has 1 to 8192 elements");
            return (latent_page_bytes(k_dim, half) + 63) / 64 * 64;
        },
        "k_dim"_a, "half"_a, "Bytes of a page of a latent cache.");
    m.def(
        "exp",
        [](Floats x, const std::string& isa, bool flush_to_zero) {
            std::vector<float> y(x.size());
            const FloatMode mode(subnormals_of(flush_to_zero));
            find_kernels(isa).exp(x.data(), y.data(), y.size());
            const size_t n = y.size();
            return to_numpy(std::move(y), 1, n);
        },
        "x"_a, "isa"_a = "", "flush_to_zero"_a = false,
        "The engine's own exponential, [1, n] float32.");

    m.def(
        "crc32c_variants",
        [] {
            std::vector<std::string> names;
            for (const Crc32cVariant& variant : crc32c_variants()) names.emplace_back(variant.name);
            return names;
        },
        "The ways to compute a CRC-32C here, the one that is used first.");
    m.def(
        "crc32c",
        [](nb::bytes data, const std::string& variant, uint32_t sum) {
            for (const Crc32cVariant& known : crc32c_variants())
                if (variant == known.name)
                    return known.extend(sum, static_cast<const uint8_t*>(data.data()), data.size());
            throw nb::value_error(("this processor has no CRC-32C by " + variant).c_str());
        },
        "data"_a, "variant"_a, "sum"_a = 0,
        "The checksum of the mesh's frames, going on from one.");
    m.def(
        "checksum",
        [](nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu> data) {
            nb::gil_scoped_release released;
            return checksum(data.data(), data.size());
        },
        "data"_a, "64 bits that tell damaged bytes, at the speed of memory; not for secrets.");
}

}  // namespace bw
