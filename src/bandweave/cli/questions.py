"""The demo's questions and how an answer is checked. Knows the file in the package's assets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bandweave.checkpoints.source import CheckpointError
from bandweave.files import read_json

_FILE = "questions.json"
_MOST_BYTES = 1 << 20
# The rule of the file: the number after the last "=" is the answer.
_ANSWER = re.compile(r"= (\d+(?:\.\d+)?)[^=]*$")


@dataclass(frozen=True, kw_only=True)
class Question:
    """``expected``: the number that a right answer ends with, None where nobody knows."""

    messages: tuple[dict[str, str], ...]
    expected: str | None = None

    @property
    def text(self) -> str:
        return self.messages[-1]["content"]

    def is_right(self, answer: str) -> bool | None:
        """Whether the answer is right; None where nobody knows."""
        if self.expected is None:
            return None
        found = _ANSWER.search(answer.strip())
        return found is not None and found[1] == self.expected


def ask(text: str) -> Question:
    """A question of the user's own."""
    return Question(messages=({"role": "user", "content": text},))


def load_questions(folder: Path) -> list[Question]:
    """The questions that come with the demo model."""
    try:
        content, _ = read_json(folder / _FILE, most=_MOST_BYTES, error=ValueError)
        return [
            Question(
                messages=tuple(
                    {"role": str(message["role"]), "content": str(message["content"])}
                    for message in entry["messages"]
                ),
                expected=None if entry.get("expected") is None else str(entry["expected"]),
            )
            for entry in content["questions"]
        ]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"{folder / _FILE} cannot be used ({type(error).__name__}); install bandweave again, "
            "or ask with --question"
        ) from error
