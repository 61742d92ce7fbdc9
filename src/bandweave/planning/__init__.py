"""Where it runs and how fast: splits, hardware, costs. Reads packaged tables; no other I/O."""
