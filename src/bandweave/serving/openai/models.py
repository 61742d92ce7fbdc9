"""``/v1/models``: the one model, as OpenAI, Anthropic and other servers describe theirs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from bandweave.serving.answers.served import Served


def model_object(served: Served) -> dict[str, Any]:
    created = datetime.fromtimestamp(served.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "bandweave",
        # of Anthropic
        "type": "model",
        "display_name": served.name,
        "created_at": created,
        # of vLLM and llama-server
        "root": served.name,
        "parent": None,
        "max_model_len": served.context,
        "context_length": served.context,
        "meta": {"n_ctx": served.context, "n_vocab": served.vocab_size},
    }


def model_list(served: Served) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [model_object(served)],
        # of Anthropic, which gives long lists page by page
        "has_more": False,
        "first_id": served.name,
        "last_id": served.name,
        # where Codex looks for its maker's own models, of which there is none here
        "models": [],
    }
