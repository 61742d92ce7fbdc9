"""Where it runs: splits and plans as pure functions. Does no I/O."""
