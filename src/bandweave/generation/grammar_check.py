"""Whether a grammar can be used: a program that compiles it within bounds of time and memory.

Grammars come from outside, and what their compiler takes is not in its own hands: a process can be
ended. Reads the grammar from standard input; writes what is wrong with it, nothing where it is
right.
"""

from __future__ import annotations

import contextlib
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import llguidance

_SECONDS = 1  # of a processor
_MOST_BYTES = 100 << 20  # beyond what the process has at its start
_WALL_SECONDS = 30.0  # on a machine that is busy
_ERROR = 400  # characters
_QUOTED = re.compile(r"\s*(\d+ \||\^)")
_TOO_MUCH = f"it takes more than {_SECONDS} s or {_MOST_BYTES >> 20} MiB to prepare"


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


def check_grammar(grammar: str) -> str:
    """What is wrong with a grammar, in one line; empty where it can be used. It has no tokens of
    its own: names of them are texts here. Takes some tenths of a second, a second at most.
    ``TimeoutError`` where a busy machine has not found out in thirty."""
    command = [sys.executable, "-P", __file__]
    try:
        done = subprocess.run(
            command, input=grammar.encode(), capture_output=True, timeout=_WALL_SECONDS
        )
    except subprocess.TimeoutExpired as error:  # which says nothing of the grammar
        raise TimeoutError("grammars cannot be checked: the machine is too busy") from error
    if done.returncode == 1 and b"MemoryError" not in done.stderr:  # an error of Python's
        raise RuntimeError(f"grammars cannot be checked: {done.stderr.decode()[-_ERROR:]}")
    if done.returncode:
        return _TOO_MUCH
    return done.stdout.decode("utf-8", "replace").strip()


def first_line(text: str) -> str:
    """An error of the library's in one line, without what it quotes of the grammar."""
    lines = text.partition("<backtrace>")[0].splitlines()
    return " ".join(" ".join(one for one in lines if not _QUOTED.match(one)).split())[:_ERROR]


def _main() -> None:
    grammar = sys.stdin.buffer.read().decode()
    tokenizer = llguidance.LLTokenizer("byte")
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        bound = pages * resource.getpagesize() + _MOST_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)  # RLIMIT_CPU knows whole seconds alone
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=grammar_limits())
    if not matcher.is_error():
        matcher.compute_bitmask()
    if matcher.is_error():
        print(first_line(matcher.get_error()))
    elif matcher.is_stopped() and matcher.stop_reason() not in ("NoExtension", "EndOfSentence"):
        print("there is nothing that it allows")


if __name__ == "__main__":
    _main()
