"""What Ollama's clients ask about models: which there are, and what they are."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from bandweave.serving.answers.served import Served

# The version of Ollama whose API this is; clients look at it before they use what is newer.
API_VERSION = "0.14.0"
_FOREVER = "9999-12-31T23:59:59Z"


def listed(served: Served) -> dict[str, Any]:
    """The entry of ``/api/tags``."""
    return {
        "name": served.name,
        "model": served.name,
        "modified_at": _created(served),
        "size": served.about.file_bytes,
        "digest": hashlib.sha256(f"{served.fingerprint} {served.name}".encode()).hexdigest(),
        "details": _details(served),
        "capabilities": _capabilities(served),
    }


def running(served: Served) -> dict[str, Any]:
    """The entry of ``/api/ps``."""
    entry = listed(served)
    for name in ("modified_at", "capabilities"):
        del entry[name]
    return {**entry, "expires_at": _FOREVER, "size_vram": 0, "context_length": served.context}


def shown(served: Served) -> dict[str, Any]:
    """The answer of ``/api/show``."""
    family = served.about.family or "unknown"
    parameters = {name: value for name, value in asdict(served.defaults).items()}
    parameters["repeat_penalty"] = parameters.pop("repetition_penalty")
    return {
        "modified_at": _created(served),
        "template": served.template.source if served.template is not None else "",
        "parameters": "\n".join(f"{name} {value:g}" for name, value in parameters.items()),
        "details": _details(served),
        "model_info": {
            "general.architecture": family,
            "general.basename": served.name,
            "general.parameter_count": served.about.parameters,
            f"{family}.context_length": served.context,
        },
        "capabilities": _capabilities(served),
    }


def _details(served: Served) -> dict[str, Any]:
    about = served.about
    return {
        "parent_model": "",
        "format": "bandweave",
        "family": about.family,
        "families": [about.family],
        "parameter_size": _count(about.parameters),
        "quantization_level": about.weight_format,
        "context_length": served.context,
    }


def _capabilities(served: Served) -> list[str]:
    found = ["completion"]
    if served.syntax.tools:
        found.append("tools")
    if served.can_think:
        found.append("thinking")
    return found


def _count(parameters: int) -> str:
    if parameters >= 1e9:
        return f"{parameters / 1e9:.1f}B"
    return f"{parameters / 1e6:.1f}M" if parameters else ""


def _created(served: Served) -> str:
    return datetime.fromtimestamp(served.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
