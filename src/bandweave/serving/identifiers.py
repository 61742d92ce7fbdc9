"""Identifiers that no other answer has."""

from __future__ import annotations

import secrets


def new_id(kind: str) -> str:
    """Such as ``chatcmpl-`` and 24 hexadecimal digits."""
    return f"{kind}-{secrets.token_hex(12)}"
