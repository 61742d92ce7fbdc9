"""GrammarText: a grammar as ``llguidance`` reads it, put together rule by rule.

Its language is Lark's, with JSON schemas within and tokens that are never text by their ids.
Reference: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from bandweave.serving.answers.marks import Marks

_SLASH = re.compile(r"(?<!\\)((?:\\\\)*)/")
_ANY = "/(?s:.*)/"
# Any indentation, or one space: with more room a weak model writes little else.
_JSON_SPACE = r"( |\n[ \t]{0,32})?"


class GrammarText:
    """``checked``: without a vocabulary, whose tokens are texts then."""

    def __init__(self, mark: Marks, *, checked: bool = False) -> None:
        self._mark, self._checked = mark, checked
        self._rules: list[str] = []
        self._names: dict[str, str] = {}

    def whole(self, start: str) -> str:
        return "\n".join([f"start: {start}", *self._rules, ""])

    def rule(self, body: str, options: str = "") -> str:
        """The name of a rule; alike ones are one."""
        key = f"{options}: {body}"
        if key not in self._names:
            self._names[key] = f"r{len(self._names)}"
            self._rules.append(f"{self._names[key]}{key}")
        return self._names[key]

    def literal(self, text: str) -> str:
        """A text; what are tokens in it that are never shown are those."""
        return " ".join(
            quoted(part) if isinstance(part, str) else self._token(part)
            for part in self._mark.parts(text)
        )

    def until(self, literal: str) -> str:
        """Any text up to a literal, and the literal."""
        parts = list(self._mark.parts(literal))
        if isinstance(parts[0], str):
            head = self.rule(_ANY, f"[suffix={quoted(parts[0])}]")
        else:
            head = f"{self.rule(_ANY)} {self._token(parts[0])}"
        rest = (quoted(one) if isinstance(one, str) else self._token(one) for one in parts[1:])
        return " ".join([head, *rest])

    def anything(self) -> str:
        return self.rule(_ANY)

    def json(self, schema: Any) -> str:
        """JSON of a schema."""
        whole = {**schema} if isinstance(schema, Mapping) else {} if schema else {"not": {}}
        whole["x-guidance"] = {"whitespace_pattern": _JSON_SPACE}
        return self.rule(f"%json {json.dumps(whole)}")

    def regex(self, pattern: str) -> str:
        body = _SLASH.sub(r"\1\\/", pattern).replace("\n", r"\n").replace("\r", r"\r")
        return self.rule(f"/{body}/")

    def _token(self, token: int) -> str:
        return quoted(f"<[{token}]>") if self._checked else f"<[{token}]>"


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def any_of(bodies: Iterable[str]) -> str:
    """One of several."""
    return f"({' | '.join(bodies)})"
