"""What each node computes: the program of operations, its split, and its costs."""
