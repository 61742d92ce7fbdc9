// The Python module bandweave._native: thin, checked, and without the GIL while it computes.
#include "bindings/bindings.h"
#include "exchange/exchange.h"

NB_MODULE(_native, m) {
    nb::exception<bw::StepError>(m, "StepError", PyExc_RuntimeError);
    bw::bind_kernels(m);
    bw::bind_matrix(m);
    bw::bind_program(m);
    bw::bind_exchange(m);
    bw::bind_executor(m);
}
