"""Identifiers that no other answer has."""

from __future__ import annotations

import secrets


def new_id(kind: str, mark: str = "-") -> str:
    """Such as ``chatcmpl-`` and 24 hexadecimal digits. ``mark`` stands between them."""
    return f"{kind}{mark}{secrets.token_hex(12)}"
