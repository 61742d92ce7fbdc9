// The Python module bandweave._native: thin, checked, and without the GIL while it computes.
#include "bindings/bindings.h"
#include "exchange/exchange.h"

NB_MODULE(_native, m) {
#if !defined(BW_LEAK_WARNINGS)
    // Processes end while daemon threads still hold objects of ours (one may be storing weights in
    // the cache), or by os._exit: what is left then goes with the process.
    nb::set_leak_warnings(false);
#endif
    nb::exception<bw::StepError>(m, "StepError", PyExc_RuntimeError);
    bw::bind_kernels(m);
    bw::bind_matrix(m);
    bw::bind_program(m);
    bw::bind_exchange(m);
    bw::bind_executor(m);
}
