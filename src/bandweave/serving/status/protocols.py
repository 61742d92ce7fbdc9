"""Protocols: what requests are called in figures, by the path to which they came."""

from __future__ import annotations

_NAMES = {
    "/chat/completions": "chat",
    "/completions": "completions",
    "/responses": "responses",
    "/messages": "messages",
    "/embeddings": "embeddings",
    "/api/chat": "ollama_chat",
    "/api/generate": "ollama_generate",
    "/api/embed": "ollama_embed",
    "/api/embeddings": "ollama_embed",
}


def protocol_of(path: str) -> str:
    """One of few names, whatever a client asks for."""
    return _NAMES.get(path.rstrip("/").removeprefix("/v1"), "other")
