"""Many inputs for what takes others' data: files (``files``); dumped programs, programs, mesh
transcripts, threads (``fuzzer``)."""
