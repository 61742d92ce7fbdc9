"""The shapes of Ollama's API."""
