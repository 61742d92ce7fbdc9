"""Marks: characters for the tokens of a syntax that are never shown, so that its readers see them.

A mark is a lone surrogate, which no decoded text has. Where a literal of a syntax has no such token
it is looked for as it reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import astuple

from bandweave.serving.answers.forms import FORMS
from bandweave.serving.answers.syntax import Syntax
from bandweave.text.tokenizer import Tokenizer

_NAME = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")
_FIRST = 0xD800
_SHOWN = str.maketrans({_FIRST + place: "" for place in range(64)})


class Marks:
    """``by_token``: the marks of tokens, by their ids."""

    def __init__(self, tokens: Mapping[str, int]) -> None:
        """``tokens``: names of tokens that are never shown, and their ids."""
        self.tokens = dict(tokens)
        self._by_name = {name: chr(_FIRST + place) for place, name in enumerate(tokens)}
        self.by_token = {token: self._by_name[name] for name, token in tokens.items()}

    @classmethod
    def of(cls, syntax: Syntax, tokenizer: Tokenizer) -> Marks:
        """Those of a syntax, in a model's vocabulary."""
        found: dict[str, int] = {}
        for literal in literals(syntax):
            for name in _NAME.findall(literal):
                token = tokenizer.token_to_id(name)
                if token is not None and token in tokenizer.hidden_token_ids:
                    found[name] = token
        return cls(found)

    def __call__(self, literal: str) -> str:
        """A literal as it stands in an answer's text."""
        for name, mark in self._by_name.items():
            literal = literal.replace(name, mark)
        return literal

    def parts(self, literal: str) -> Iterator[str | int]:
        """A literal as pieces of text, and ids of tokens that are never shown."""
        ids = {mark: token for token, mark in self.by_token.items()}
        text = ""
        for character in self(literal):
            if character in ids:
                if text:
                    yield text
                yield ids[character]
                text = ""
            else:
                text += character
        if text:
            yield text


NO_MARKS = Marks({})


def shown(text: str) -> str:
    """A text without its marks."""
    return text.translate(_SHOWN)


def literals(syntax: Syntax) -> list[str]:
    """All that a syntax looks for."""
    form = FORMS.get(syntax.tools)
    fields = astuple(form) if form is not None else ()
    found = [syntax.think_open, syntax.think_close]
    for value in fields:
        found += value if isinstance(value, tuple) else [value] if isinstance(value, str) else []
    return [literal for literal in found if literal]
