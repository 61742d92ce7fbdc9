"""The reference executor: docs/numerics.md in numpy, one readable function an operation."""
