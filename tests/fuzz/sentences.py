"""What a mistake must end in: one sentence for people."""

from __future__ import annotations

import tempfile

_MOST_CHARACTERS = 1000  # of a sentence, without its file's name


def sentence_fault(error: ValueError) -> str | None:
    """What keeps an error's message from being one sentence for people, or None."""
    message = str(error)
    if not message.strip():
        return "no message"
    if "\n" in message:
        return "more than one line"
    if not message.isprintable():
        return "characters that no terminal should see"
    if len(message) > _MOST_CHARACTERS + len(tempfile.gettempdir()) + 100:
        return f"a message of {len(message)} characters"
    if type(error) is not UnicodeDecodeError and isinstance(error, UnicodeError):
        return "Python's own error"
    return None


def check_sentence(error: ValueError) -> None:
    """That an error which is not passed on is one sentence too."""
    fault = sentence_fault(error)
    if fault:
        raise AssertionError(f"{fault}: {error!r}") from error
