"""Syntax: how a model writes thoughts and calls of tools into its text. Plain data.

The literals are the models' own, from their chat templates. Knows no tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ToolForm = Literal["", "hermes", "llama3", "mistral", "deepseek"]


@dataclass(frozen=True, kw_only=True)
class Syntax:
    """Thoughts stand between ``think_open`` and ``think_close``, empty where the model has none;
    with ``thinks`` the prompt has opened them already. ``tools``: the form in which calls are
    written, empty where none can be made; with ``only_calls`` the answer is nothing but calls."""

    think_open: str = ""
    think_close: str = ""
    thinks: bool = False
    tools: ToolForm = ""
    only_calls: bool = False


PLAIN = Syntax()
"""All is text."""
