"""This machine: its processors, its memory, and what its containers leave of them."""
