"""Stored answers of Hugging Face transformers, and the script that made them."""
