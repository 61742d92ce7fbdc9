"""A model on its nodes: who holds what, how it is loaded, and how every node serves."""
