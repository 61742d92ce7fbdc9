"""Usage: how many tokens were read and written, as OpenAI counts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.events import End


def usage_of(ask: Ask, ends: Sequence[End]) -> dict[str, Any]:
    """A prompt counts once, however many answers there are to it."""
    written = sum(len(end.tokens) for end in ends)
    return {
        "prompt_tokens": len(ask.tokens),
        "completion_tokens": written,
        "total_tokens": len(ask.tokens) + written,
        "prompt_tokens_details": {
            "cached_tokens": ends[0].cached_tokens if ends else 0,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": sum(end.thought_tokens for end in ends),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
