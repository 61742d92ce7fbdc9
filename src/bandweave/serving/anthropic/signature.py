"""Signatures of thoughts: what clients give back with them, unread.

Thoughts that a client wants omitted travel in theirs, so that the next request still has them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

_OMITTED, _SHOWN = "omitted.", "shown."


def sign(thought: str, *, omitted: bool) -> str:
    if omitted:
        return _OMITTED + base64.b64encode(thought.encode()).decode()
    return _SHOWN + hashlib.sha256(thought.encode()).hexdigest()


def omitted_thought(signature: str) -> str:
    """The thought that a signature carries; empty where it carries none."""
    if not signature.startswith(_OMITTED):
        return ""
    try:
        return base64.b64decode(signature.removeprefix(_OMITTED), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
