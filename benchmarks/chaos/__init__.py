"""Chaos: streams of a server whose nodes are killed, stopped, cut off, slowed and brought back."""
