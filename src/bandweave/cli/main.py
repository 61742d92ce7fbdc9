"""The ``bandweave`` command: its group of commands, and what becomes of every error.

A command is the ``command`` of the module of its name, imported when it is asked for, so that
``--version`` and ``--help`` cost no more than click, and need no engine.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from bandweave import NUMERICS_VERSION, __version__
from bandweave.cli import output
from bandweave.cli.interrupts import (
    Terminated,
    hear_signals,
    ignore_signals,
    interrupts_held,
)
from bandweave.cli.remarks import say_remarks
from bandweave.environment import read_environment
from bandweave.missing_engine import missing_engine
from bandweave.shown import printable

#: In the order of ``--help``, with what it says of them.
COMMANDS = {
    "demo": "Split a small model over two nodes, and see that it is the same.",
    "run": "Answer one prompt.",
    "chat": "Talk with a model.",
    "serve": "Answer programs that speak OpenAI's API or others.",
    "up": "Start a cluster here, for others to join.",
    "join": "Make this machine a part of a cluster.",
    "status": "Show a cluster's machines and what runs on them.",
    "leave": "Let this machine leave its cluster.",
    "down": "End the cluster that `up` started here.",
    "pull": "Download a model of the Hugging Face hub.",
    "bench": "Measure a model's speed, and what bounds it.",
    "plan": "Predict how fast a model would be on given machines.",
    "probe": "Measure machines and links, for predictions.",
    "synth": "Write a model of random weights, to measure with.",
    "worker": "Offer this machine as a node.",
    "doctor": "Say what this machine has and lacks.",
    "cache": "Show or empty what is kept: packed weights, downloads.",
    "dump": "Write a model into one file for bandweave-runner.",
}

# Exit statuses.
MISTAKE, FAILURE, INTERRUPTED, BROKEN_PIPE = 2, 1, 130, 141

# Errors of the operating system that are about a file or an address that the user named.
_NAMED_WRONGLY = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)

_REMEDIES = {
    errno.EMFILE: "; allow more with `ulimit -n 1024`",
    errno.EAGAIN: "; are more processes allowed here (`ulimit -u`, or the container's limit)?",
}


class _Commands(click.Group):
    """Finds a command in the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        with interrupts_held():
            return importlib.import_module(f"bandweave.cli.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)
@click.version_option(
    __version__, message=f"bandweave %(version)s (numerics version {NUMERICS_VERSION})"
)
@click.pass_context
def cli(context: click.Context) -> None:
    """Weaves the memory bandwidth of several machines into one, and runs a language model on them
    that none could run alone.

    MODEL is a folder in Hugging Face layout, a .gguf file, a model of the hub as org/name, or
    `demo` for the small model that comes with bandweave. Try `bandweave demo` first.
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a command and ends the process with its exit status."""
    hear_signals()
    status = run(arguments)
    ignore_signals()
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    sys.exit(status)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; its exit status.

    A user's mistake is one sentence and status 2, any other failure one sentence and status 1,
    Ctrl-C nothing and status 130, SIGTERM nothing and 143, SIGHUP nothing and 129; the traceback is
    shown only on request. With ``--json`` a failure prints JSON as well, whose ``error`` is that
    sentence.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdin, sys.stdout):  # models speak UTF-8, whatever the locale
        stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    try:
        # Not cli.main(), which has ways of its own with interrupts and broken pipes.
        with cli.make_context("bandweave", words) as context:
            cli.invoke(context)
            output.flush()
            say_remarks(context)
        return 0
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Terminated as error:
        return error.status
    except BrokenPipeError:
        # Whoever read our output has had enough. What is still buffered must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if _is_interrupt(error):
            return INTERRUPTED
        if read_environment().debug:
            traceback.print_exc()
        return _fail(error, as_json="--json" in words)


def _fail(error: Exception, *, as_json: bool) -> int:
    """Says what is wrong; the exit status."""
    value: dict[str, Any] = {}
    if isinstance(error, output.JsonFailure) and isinstance(error.__cause__, Exception):
        value, error = error.value, error.__cause__
    status, sentence = explain(error)
    if sentence:
        output.say(f"bandweave: {sentence}")
        if as_json:
            with contextlib.suppress(OSError):
                output.print_json({**value, "error": sentence, "exit_status": status})
    return status


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is what an error was made of, as happens in the midst of an import."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__
    return False


def explain(error: Exception) -> tuple[int, str]:
    """The exit status and the sentence of an error."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code, ""
    if isinstance(error, click.ClickException):
        return MISTAKE, _usage(error)
    if isinstance(error, MemoryError):
        return MISTAKE, str(error) or "out of memory; use a smaller model or a smaller --context"
    if isinstance(error, ValueError):
        return MISTAKE, _one_line(str(error)) or _unforeseen(error)
    if isinstance(error, OSError):
        status = MISTAKE if isinstance(error, _NAMED_WRONGLY) else FAILURE
        return status, _system(error)
    if _is_step_error(error):
        return FAILURE, _one_line(str(error))
    if isinstance(error, ImportError):
        return FAILURE, missing_engine(error) or f"{error}; install bandweave again"
    return FAILURE, _unforeseen(error)


def _usage(error: click.ClickException) -> str:
    sentence = _one_line(error.format_message())
    # As our own sentences put it: ``No such option '--promt'; did you mean '--prompt'?``
    sentence = re.sub(r"\.? \(?Did you mean (one of: )?", "; did you mean ", sentence)
    sentence = re.sub(r"\?\)?$", "?", sentence)
    sentence = re.sub(r"is not a valid (integer|float)( range)?\.?$", "is no number", sentence)
    context = getattr(error, "ctx", None)
    if context is None:
        return sentence
    end = " See" if sentence.endswith("?") else "; see"
    return f"{sentence.rstrip('.')}{end} {context.command_path} --help"


def _system(error: OSError) -> str:
    if error.strerror:
        name = error.filename
        where = f"{printable(name) if isinstance(name, str) else name}: " if name else ""
        return f"{where}{error.strerror}{_REMEDIES.get(error.errno or 0, '')}"
    return _one_line(str(error)) or _unforeseen(error)


def _is_step_error(error: Exception) -> bool:
    # Only a command that has loaded the engine can meet its errors.
    executor = sys.modules.get("bandweave.executors.executor")
    return executor is not None and isinstance(error, executor.StepError)


def _unforeseen(error: Exception) -> str:
    last = traceback.format_exception_only(error)[-1]
    return f"unforeseen: {_one_line(last)}; BANDWEAVE_DEBUG=1 shows where"


def _one_line(text: str) -> str:
    """Without what a terminal would obey: some of the words come from other machines."""
    # Bytes of file names that are no text stay; standard error shows them as numbers.
    letters = (c if c.isprintable() or "\ud800" <= c <= "\udfff" else " " for c in text)
    return " ".join("".join(letters).split())
