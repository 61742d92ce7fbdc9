"""The ``tokenizers`` library, made safe for files from outside: its errors and its panics become
sentences.

A panic of the library is a ``BaseException`` that is no ``Exception``, and it writes to standard
error before it is raised. Knows no files and no models.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator

import tokenizers

from bandweave.shown import printable
from bandweave.text.files import TextError


def load_library(content: bytes, where: str) -> tokenizers.Tokenizer:
    """The tokenizer of a ``tokenizer.json``; ``TextError`` where it cannot be used.

    It is tried on a text: some of what may be wrong panics only then. That it cannot encode this
    very text is no mistake.
    """
    with library_errors(f"{where} cannot be used", "; download it again"), _hushed():
        library = tokenizers.Tokenizer.from_buffer(content)
        # Files may ask for cut or padded texts, which is for training only.
        library.no_truncation()
        library.no_padding()
        with contextlib.suppress(Exception):
            library.decode(library.encode("a b").ids)
    return library


def is_byte_level(library: tokenizers.Tokenizer) -> bool:
    """Whether decoding is the byte alphabet and nothing else."""
    if library.decoder is None:
        return False
    state = json.loads(library.decoder.__getstate__())
    while state["type"] == "Sequence" and len(state["decoders"]) == 1:
        (state,) = state["decoders"]
    return state["type"] == "ByteLevel"


@contextlib.contextmanager
def library_errors(what: str, remedy: str = "") -> Iterator[None]:
    """Turns whatever the library raises into a ``TextError``: what went wrong, the library's
    reason, and the remedy."""
    try:
        yield
    except TextError:
        raise
    except Exception as error:  # the library raises plain Exception
        raise TextError(f"{what}: {_reason(error)}{remedy}") from error
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":  # Ctrl-C, and the like
            raise
        raise TextError(f"{what}: {_reason(error)}{remedy}") from None


def _reason(error: BaseException) -> str:
    return printable(" ".join(str(error).split()))[:200] or type(error).__name__


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Standard error leads nowhere meanwhile, for everybody in the process; so only while a model
    is opened, and for as long as that takes."""
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
