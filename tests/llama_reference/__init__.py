"""Logits of llama.cpp over small GGUF files of one type each, and the script that makes them."""
