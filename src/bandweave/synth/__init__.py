"""Models with random weights, in any shape."""
