"""Thoughts that clients carry from one request to the next, as text that only this server reads.

Nothing is kept here, so what a later request needs has to travel with the client.
"""

from __future__ import annotations

import base64
import binascii

_MARK = "bandweave.1."


def sealed(thought: str) -> str:
    """It is packed, not encrypted: what it says is the client's own anyway."""
    return _MARK + base64.b64encode(thought.encode()).decode()


def unsealed(text: str) -> str:
    """Empty for what another server sealed."""
    if not text.startswith(_MARK):
        return ""
    try:
        return base64.b64decode(text.removeprefix(_MARK), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
