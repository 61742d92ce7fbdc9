"""How values and paths from outside are shown in messages: short, on one line, whatever they hold.

Knows no files and no terminals.
"""

from __future__ import annotations

import os

_MOST_CHARACTERS = 80


def shown(value: object) -> str:
    """The ``repr`` of a value, cut where it is long; safe for any number, however many digits."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than some thousand digits
        return "a number of thousands of digits"
    except RecursionError:
        return f"a deeply nested {type(value).__name__}"
    if len(text) > _MOST_CHARACTERS:
        text = f"{text[: _MOST_CHARACTERS - 3]}..."
    return printable(text)


def printable(text: str | os.PathLike[str]) -> str:
    """A text or a path that any terminal and any encoding can show.

    Bytes of a file name that are not UTF-8 become ``\\xff``, line breaks and other control
    characters their escapes.
    """
    name = os.fspath(text)
    if name.isprintable():  # which a lone surrogate is not
        return name
    try:
        name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        name = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in name
    )
