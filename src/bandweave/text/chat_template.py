"""ChatTemplate: a conversation to the text that the model was trained to read.

Renders the model's own Jinja template in a sandbox, for the template comes from outside. Knows
messages and text; knows no tokens' ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from bandweave import files
from bandweave.shown import printable, shown
from bandweave.text.files import TextError, read_object, read_text
from bandweave.text.template_sandbox import compile_template, render, variables_of
from bandweave.text.token_files import named_tokens

Message = Mapping[str, Any]
"""``role`` and ``content``, and what else the template knows (``tool_calls`` ...)."""

_FILE, _CONFIG = "chat_template.jinja", "tokenizer_config.json"
_KEY = "tokenizer.chat_template"
_GGUF_REMEDY = "use a plain prompt"
_FOLDER_REMEDY = "use a plain prompt, or put a chat_template.jinja there"
_MOST_CHARACTERS = 64_000  # the longest template in use has some 30,000


class ChatTemplate:
    """A parsed template; threads may share one. ``source`` is its text, ``variables`` the names
    that it looks up."""

    def __init__(
        self,
        source: str,
        *,
        tokens: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """``tokens``: ``bos_token``, ``eos_token`` ... as text. ``now``: for templates that write
        the date. ``TextError`` where the template is no Jinja."""
        if len(source) > _MOST_CHARACTERS:
            raise TextError(
                f"the model's chat template has {len(source)} characters; more than "
                f"{_MOST_CHARACTERS} are not read"
            )
        self.source = source
        self._tokens = {"bos_token": "", "eos_token": "", **(tokens or {})}
        try:
            self._template = compile_template(source, now)
            self.variables = variables_of(source, now)
        # Jinja makes Python of it, and the errors of both may come of that: loops nested too
        # deeply are a SyntaxError, expressions nested too deeply a RecursionError or MemoryError.
        except Exception as error:
            raise TextError(f"the model's chat template cannot be read: {_why(error)}") from error

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        tokens: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> ChatTemplate:
        """The template of a model folder: ``chat_template.jinja``, else ``chat_template`` of
        ``tokenizer_config.json``. ``tokens``: the tokenizer's; those that the files name, if they
        are not given. ``TextError`` where there is no template."""
        folder = Path(folder)
        source = read_text(folder / _FILE)
        if source is None:
            value = read_object(folder / _CONFIG).get("chat_template")
            source = _default_template(printable(folder), value, _FOLDER_REMEDY)
        return cls(source, tokens=named_tokens(folder) if tokens is None else tokens, now=now)

    @classmethod
    def from_gguf(
        cls,
        metadata: Mapping[str, Any],
        *,
        tokens: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = datetime.now,
        where: str = "the GGUF file",
    ) -> ChatTemplate:
        """The template called ``default`` of those in a GGUF file's metadata. ``tokens``: the
        tokenizer's. ``where``: the file's name, printable. ``TextError`` where there is no
        template, and where it is no text."""
        source = metadata.get(_KEY)
        named = {
            key.removeprefix(f"{_KEY}."): value
            for key, value in metadata.items()
            if key.startswith(f"{_KEY}.")
        }
        if source is None:
            source = _default_template(where, named or None, _GGUF_REMEDY)
        if not isinstance(source, str) or not _is_unicode(source):
            raise TextError(
                f"{where}: {_KEY} is {shown(source)}, no text; download it again, or convert the "
                "model again"
            )
        return cls(source, tokens=tokens, now=now)

    @staticmethod
    def is_in_gguf(metadata: Mapping[str, Any]) -> bool:
        """Whether a GGUF file's metadata has a template, readable or not."""
        return any(key == _KEY or key.startswith(f"{_KEY}.") for key in metadata)

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether a model folder has a template, readable or not."""
        if files.is_there(folder / _FILE):
            return True
        return read_object(folder / _CONFIG).get("chat_template") is not None

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
        malformed messages, for conversations that the template refuses, and for templates that
        come to no end.
        """
        for index, message in enumerate(messages):
            if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
                raise TextError(
                    f"message {index} of the chat is {shown(message)}; it needs a 'role' "
                    "(system, user or assistant) and a 'content'"
                )
        if not messages:
            raise TextError("the chat has no messages; give at least one")
        values = {
            **self._tokens,
            "documents": None,
            **(variables or {}),
            "messages": list(messages),
            "tools": None if tools is None else list(tools),
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return render(self._template, values)
        # What a template does with messages that it did not expect may end in any error of an
        # expression.
        except Exception as error:
            why = _why(error)
            raise TextError(f"the model's chat template refuses these messages: {why}") from error


def _why(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it takes too much memory"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = printable(" ".join(str(error).split()))
    return text[:300] or type(error).__name__


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _default_template(name: str, value: Any, remedy: str) -> str:
    """The template called ``default`` of those in a config, or the only one."""
    if isinstance(value, str):
        return value
    if value is None:
        raise TextError(
            f"{name} has no chat template, as models have that were not trained to chat; {remedy}"
        )
    entries = value if isinstance(value, list) else []
    by_name = {
        str(entry.get("name")): entry.get("template")
        for entry in entries
        if isinstance(entry, dict)
    }
    if isinstance(value, dict):
        by_name = value
    template = by_name.get("default")
    if isinstance(template, str):
        return template
    names = ", ".join(printable(str(key))[:40] for key in list(by_name)[:10])
    raise TextError(
        f"{name} has chat templates called {names or 'nothing'}, but none called 'default'; use a "
        "plain prompt instead of a chat"
    )
