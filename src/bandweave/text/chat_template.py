"""ChatTemplate: a conversation to the text that the model was trained to read.

Renders the model's own Jinja template in a sandbox, for the template comes from outside. Knows
messages and text; knows no tokens' ids.
Reference: transformers' ``chat_template_utils``, whose extras templates rely on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bandweave.text.files import TextError, read_object, read_text, special_tokens

Message = Mapping[str, Any]
"""``role`` and ``content``, and what else the template knows (``tool_calls`` ...)."""


class ChatTemplate:
    """A parsed template; threads may share one. ``source`` is its text."""

    def __init__(
        self,
        source: str,
        *,
        tokens: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """``tokens``: ``bos_token``, ``eos_token`` ... as text. ``now``: for templates that write
        the date. ``TextError`` where the template is no Jinja."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda format: now().strftime(format)
        self.source = source
        self._tokens = {"bos_token": "", "eos_token": "", **(tokens or {})}
        try:
            self._template = environment.from_string(source)
        except (TemplateError, RecursionError) as error:
            raise TextError(f"the model's chat template cannot be read: {error}") from error

    @classmethod
    def from_folder(
        cls, folder: str | Path, *, now: Callable[[], datetime] = datetime.now
    ) -> ChatTemplate:
        """The template of a model folder: ``chat_template.jinja``, else ``chat_template`` of
        ``tokenizer_config.json``. ``TextError`` where there is none."""
        folder = Path(folder)
        source = read_text(folder / "chat_template.jinja")
        if source is None:
            config = read_object(folder / "tokenizer_config.json")
            source = _default_template(folder, config.get("chat_template"))
        return cls(source, tokens=special_tokens(folder), now=now)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of a conversation, with the start of the assistant's answer if
        ``add_generation_prompt``. It has its special tokens: encode it without adding any.

        ``variables``: what else the template knows (``enable_thinking`` ...). ``TextError`` for
        malformed messages and for conversations that the template refuses.
        """
        for index, message in enumerate(messages):
            if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
                raise TextError(
                    f"message {index} of the chat is {str(message)[:80]}; it needs a 'role' "
                    "(system, user or assistant) and a 'content'"
                )
        if not messages:
            raise TextError("the chat has no messages; give at least one")
        try:
            return self._template.render(
                {
                    **self._tokens,
                    "documents": None,
                    **(variables or {}),
                    "messages": list(messages),
                    "tools": None if tools is None else list(tools),
                    "add_generation_prompt": add_generation_prompt,
                }
            )
        # A template is a program: what it does with messages that it did not expect may end in
        # any of the errors of an expression.
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError,
                AttributeError, RecursionError) as error:  # fmt: skip
            raise TextError(f"the model's chat template refuses these messages: {error}") from error


def _default_template(folder: Path, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):  # several templates by name
        for entry in value:
            if isinstance(entry, dict) and entry.get("name") == "default":
                template = entry.get("template")
                if isinstance(template, str):
                    return template
        names = [str(entry.get("name"))[:40] for entry in value if isinstance(entry, dict)]
        raise TextError(
            f"{folder} has chat templates called {', '.join(names) or 'nothing'}, but none called "
            "'default'; use a plain prompt instead of a chat"
        )
    raise TextError(
        f"{folder} has no chat template, as models have that were not trained to chat; use a plain "
        "prompt, or put a chat_template.jinja there"
    )


class _GenerationBlock(Extension):
    """``{% generation %}`` marks the assistant's words for training; here it does nothing."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML, which no model was trained on.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
