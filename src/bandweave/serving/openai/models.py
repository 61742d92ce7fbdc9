"""``/v1/models``: the one model, as OpenAI and servers like it describe theirs."""

from __future__ import annotations

from typing import Any

from bandweave.serving.answers.served import Served


def model_object(served: Served) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "bandweave",
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
        # where Codex looks for its maker's own models, of which there is none here
        "models": [],
    }
