"""GGUF files that llama.cpp's own converter writes, against the weights that they were made of."""
