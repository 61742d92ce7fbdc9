"""Syntax: how a model writes thoughts and calls of tools into its text. Plain data.

The literals are the models' own, from their chat templates. Knows no tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ToolForm = Literal[
    "", "hermes", "qwen_xml", "seed", "glm", "minimax", "minimax_m1", "llama3", "functionary",
    "mistral", "mistral_named", "deepseek", "deepseek_v31", "deepseek_v32", "deepseek_v4", "kimi",
    "phi4", "granite", "cohere", "apriel", "nemotron", "gigachat", "lfm2", "llama4", "gemma4",
    "harmony",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Syntax:
    """Thoughts stand between ``think_open`` and ``think_close``, empty where the model has none;
    with ``thinks`` the prompt has opened them already, with ``speaks`` it has opened what is said,
    and no thoughts come. ``tools``: the form in which calls are written, empty where none can be
    made (``harmony`` is a form of the whole answer, thoughts too). ``schemas``: the parameters of
    the tools by their names; empty where any name will do. ``most_calls`` end an answer, 0 for any
    number."""

    think_open: str = ""
    think_close: str = ""
    thinks: bool = False
    speaks: bool = False
    tools: ToolForm = ""
    schemas: Mapping[str, Any] = field(default_factory=dict)
    most_calls: int = 0


PLAIN = Syntax()
"""All is text."""
