"""Vocabularies of GGUF files, compared with llama.cpp."""
