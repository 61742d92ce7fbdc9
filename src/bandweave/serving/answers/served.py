"""Served: what the handlers of every protocol share: the model, who may ask, and how much."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bandweave.serving.answers.admission import Admission
from bandweave.serving.answers.answering import Answering
from bandweave.serving.answers.syntax import PLAIN, Syntax
from bandweave.serving.errors import bad, unknown_model
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.tokenizer import Tokenizer

_LONGEST_NAME = 256  # characters: it comes back in every piece of an answer


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """How tokens are chosen where a request does not say, from the model's own
    ``generation_config.json`` where it has one."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True, kw_only=True)
class About:
    """What a model is, for clients that show it: its family's name, its parameters, the bytes of
    its files and the format of its weights here. Empty or 0 where it is not known."""

    family: str = ""
    parameters: int = 0
    file_bytes: int = 0
    weight_format: str = ""


@dataclass(frozen=True, kw_only=True)
class Served:
    """``name``: the model's, as clients give it; with ``any_name`` they may give any. ``syntax``:
    how it writes thoughts and calls. ``fingerprint`` names what decides its answers: bandweave's
    numerics and the model. ``thought_fields``: of OpenAI's chats, in which thoughts are told.
    ``created``: seconds since 1970."""

    name: str
    answering: Answering
    tokenizer: Tokenizer
    template: ChatTemplate | None
    admission: Admission
    vocab_size: int
    syntax: Syntax = PLAIN
    defaults: Defaults = Defaults()
    about: About = About()
    fingerprint: str = ""
    any_name: bool = False
    thought_fields: tuple[str, ...] = ("reasoning_content",)
    created: int = field(default_factory=lambda: int(time.time()))
    clock: Callable[[], float] = time.time

    def check_name(self, name: str) -> None:
        """``ApiError`` 404 where a client names another model."""
        if name != self.name and not self.any_name:
            raise unknown_model(name, self.name)

    def asked_as(self, name: object) -> Served:
        """The model by the name that a client gives it, which the answer to it has. ``ApiError``
        where it may give any, and that is none that anybody would."""
        if not self.any_name or not isinstance(name, str) or name in ("", self.name):
            return self
        if len(name) > _LONGEST_NAME:
            raise bad(f"model has {len(name)} characters; a name has {_LONGEST_NAME} at most",
                      "model")  # fmt: skip
        return replace(self, name=name)

    @property
    def can_think(self) -> bool:
        return bool(self.syntax.think_open) or self.syntax.tools == "harmony"

    @property
    def context(self) -> int:
        return self.answering.engine.context
