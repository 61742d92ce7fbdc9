"""Matrices that are stored quantised, a format a module: which tensors they are made of, and the
values of a rectangle, widened to float32. Reads byte ranges; knows no model's tensors."""
