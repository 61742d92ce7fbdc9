"""One answer over the whole product of splits, formats, variants and models; `make exhaustive`."""
