"""Protocols: what requests are called in figures, by the path to which they came."""

from __future__ import annotations

_NAMES = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/v1/embeddings": "embeddings",
    "/api/chat": "ollama_chat",
    "/api/generate": "ollama_generate",
}


def protocol_of(path: str) -> str:
    """One of few names, whatever a client asks for."""
    return _NAMES.get(path.rstrip("/"), "other")
