"""Weight formats in readable numpy: the oracle of the kernels. Knows no models and no nodes."""
