"""Many inputs for what takes others' data: dumped programs, programs, mesh transcripts, threads."""
