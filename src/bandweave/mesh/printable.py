"""Printable: words that came from outside, made fit for a log, a sentence and a terminal."""

from __future__ import annotations

LONGEST = 300


def printable(words: object, most: int = LONGEST) -> str:
    """At most ``most`` characters of a text, without those that a terminal obeys or that turn the
    direction of writing; ``"no reason given"`` for what is no text."""
    if not isinstance(words, str):
        return "no reason given"
    spaced = (" " if character in "\t\n\v\f\r" else character for character in words[:most])
    return "".join(character for character in spaced if character.isprintable())
