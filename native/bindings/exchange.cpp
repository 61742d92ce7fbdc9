// The exchange of a node with the others, link by link.
#include "exchange/exchange.h"

#include <cmath>

#include "bindings/bindings.h"
#include "executor/executor.h"

namespace bw {

void bind_exchange(nb::module_& m) {
    nb::class_<Exchange>(m, "Exchange")
        .def(nb::init<int, std::vector<std::string>, uint32_t, double, bool>(), "node"_a, "names"_a,
             "generation"_a, "stall_seconds"_a, "spin"_a)
        .def(
            "add_tcp",
            [](Exchange& self, int peer, int descriptor) {
                self.add_link(peer, tcp_transport(descriptor, self.spin()));
            },
            "peer"_a, "descriptor"_a, "Takes over a connected stream socket.")
        .def(
            "add_sealed",
            [](Exchange& self, int peer, int descriptor, const std::string& cipher, nb::bytes send,
               nb::bytes receive, uint64_t seals_a_key) {
                if (send.size() != kKeyBytes || receive.size() != kKeyBytes)
                    throw nb::value_error("a key has 32 bytes");
                if (seals_a_key < 1) throw nb::value_error("a key seals something");
                const SealedLink link{
                    cipher_of(cipher), reinterpret_cast<const uint8_t*>(send.c_str()),
                    reinterpret_cast<const uint8_t*>(receive.c_str()), seals_a_key};
                self.add_link(peer, sealed_transport(tcp_transport(descriptor, self.spin()), link));
            },
            "peer"_a, "descriptor"_a, "cipher"_a, "send_key"_a, "receive_key"_a,
            "seals_a_key"_a = uint64_t{1} << 22,
            "Takes over a connected stream socket; what it carries is sealed.")
        .def(
            "add_emulated",
            [](Exchange& self, int peer, int descriptor, double latency, double bytes_per_s) {
                if (!(latency >= 0 && bytes_per_s > 0 && std::isfinite(latency)))
                    throw nb::value_error("a link has a latency of at least 0 and a rate above 0");
                self.add_link(peer, emulated_transport(tcp_transport(descriptor, self.spin()),
                                                       latency, bytes_per_s));
            },
            "peer"_a, "descriptor"_a, "latency"_a, "bytes_per_s"_a,
            "Takes over a connected stream socket between processes of one host; what it carries "
            "arrives as if over a link of that latency (seconds, one way) and rate.")
        .def(
            "add_shared",
            [](Exchange& self, int peer, int descriptor, int memory, bool first) {
                self.add_link(peer, shared_transport(descriptor, memory, first));
            },
            "peer"_a, "descriptor"_a, "memory"_a, "first"_a,
            "Takes over a stream socket and a descriptor of memory that both ends have.")
        .def("abort", &Exchange::abort, "reason"_a, nb::call_guard<nb::gil_scoped_release>())
        .def("leave", &Exchange::leave, nb::call_guard<nb::gil_scoped_release>());
    m.def(
        "join_locally",
        [](Exchange& a, Exchange& b) {
            auto [left, right] = local_transport();
            a.add_link(b.node(), std::move(left));
            b.add_link(a.node(), std::move(right));
        },
        "a"_a, "b"_a, "Links two nodes of one process.");
    m.def("reduction_bytes", &reduction_bytes, "rows"_a, "width"_a, "nodes"_a,
          "Bytes of the messages that a node makes for one all_reduce_add at most.");
    m.def(
        "reduction",
        [](int rows, int width, int nodes) {
            if (rows < 1 || width < 1 || nodes < 1)
                throw nb::value_error("a sum has at least one row, one number and one node");
            const ReductionPlan plan =
                plan_reduction(rows, width, nodes, WireFormat::exact, kHopBytes, kOverlapRows);
            return std::make_tuple(plan.scattered ? 2 : 1, plan.chunks,
                                   planned_bytes(plan, rows, width, nodes));
        },
        "rows"_a, "width"_a, "nodes"_a,
        "How nodes share an exact sum: its hops, its chunks, and the bytes that each node sends to "
        "each other one in each hop.");
    m.def("load_libcrypto", &load_libcrypto, "name"_a, nb::call_guard<nb::gil_scoped_release>(),
          "Opens the library that seals links; whether it could be had.");
    m.def("has_aes", &has_aes, "Whether this processor has instructions for AES.");
    m.attr("HOP_BYTES") = kHopBytes;
    m.attr("OVERLAP_ROWS") = kOverlapRows;
    m.attr("FRAME_BYTES") = sizeof(FrameHeader);
    m.def("shared_transport_bytes", &shared_transport_bytes,
          "Bytes of memory that two nodes of one host share.");
}

}  // namespace bw
