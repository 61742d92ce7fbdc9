"""Models as GGUF files describe them: llama.cpp's names of architectures, sizes and tensors."""
