"""Whether grammars can be used: a program that compiles each within bounds of time and memory.

Grammars come from outside, and what their compiler takes is not in its own hands: a process can be
ended. So each is compiled in a process of its own. This program has Python and the library loaded,
and divides itself for each grammar, which takes a millisecond where a start takes hundreds. It
talks to ``GrammarChecker`` over the socket that is its standard input, and ends with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
from pathlib import Path
from typing import NoReturn

import llguidance

_SECONDS = 1  # of a processor
_MOST_BYTES = 100 << 20  # beyond what the process has at its start
_ERROR = 400  # characters
_QUOTED = re.compile(r"\s*(\d+ \||\^)")
_TOO_MUCH = f"it takes more than {_SECONDS} s or {_MOST_BYTES >> 20} MiB to prepare"
_RIGHT, _BROKEN, _NO_MEMORY = range(3)  # how a process ends: it found out, did not, could not


def grammar_limits() -> llguidance.LLParserLimits:
    """A tenth of the library's own, which real schemas are far below."""
    return llguidance.LLParserLimits(
        initial_lexer_fuel=200_000,
        step_lexer_fuel=100_000,
        step_max_items=20_000,
        max_lexer_states=25_000,
        max_grammar_size=50_000,
        precompute_large_lexemes=False,
        verbose_errors=False,
    )


def first_line(text: str) -> str:
    """An error of the library's in one line, without what it quotes of the grammar."""
    lines = text.partition("<backtrace>")[0].splitlines()
    return " ".join(" ".join(one for one in lines if not _QUOTED.match(one)).split())[:_ERROR]


def _serve(link: socket.socket) -> None:
    """A message is four bytes of length and a grammar; an answer a byte, which is 1 where nothing
    was found out, four bytes of length, and what is wrong, nothing where the grammar is right."""
    tokenizer = llguidance.LLTokenizer("byte")
    with link.makefile("rb") as messages:
        while len(head := messages.read(4)) == 4:
            grammar = messages.read(int.from_bytes(head, "little"))
            broken, said = _apart(tokenizer, grammar)
            content = said.encode("utf-8", "replace")
            link.sendall(bytes([broken]) + len(content).to_bytes(4, "little") + content)


def _apart(tokenizer: llguidance.LLTokenizer, grammar: bytes) -> tuple[bool, str]:
    """Whether nothing was found out, and what is wrong with the grammar, or why nothing was."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _look(tokenizer, grammar, writing)
    os.close(writing)
    with open(reading, "rb") as said:
        found = said.read().decode("utf-8", "replace")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (_RIGHT, _BROKEN):  # no memory, or a signal: of the time, or of the library's
        return False, _TOO_MUCH
    return status == _BROKEN, found


def _look(tokenizer: llguidance.LLTokenizer, grammar: bytes, writing: int) -> NoReturn:
    """In a process of its own, which ends with it."""
    status = _BROKEN
    try:
        _bound()
        os.write(writing, _wrong(tokenizer, grammar.decode()).encode())
        status = _RIGHT
    except MemoryError:
        status = _NO_MEMORY
    except BaseException as error:
        os.write(writing, repr(error)[:_ERROR].encode())
    finally:
        os._exit(status)


def _bound() -> None:
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        bound = pages * resource.getpagesize() + _MOST_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)  # RLIMIT_CPU knows whole seconds alone
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _wrong(tokenizer: llguidance.LLTokenizer, grammar: str) -> str:
    matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=grammar_limits())
    if not matcher.is_error():
        matcher.compute_bitmask()
    if matcher.is_error():
        return first_line(matcher.get_error())
    if matcher.is_stopped() and matcher.stop_reason() not in ("NoExtension", "EndOfSentence"):
        return "there is nothing that it allows"
    return ""


if __name__ == "__main__":
    _serve(socket.socket(fileno=0))
