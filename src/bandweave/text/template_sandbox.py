"""The sandbox that chat templates run in, and the bounds of what they may take.

A template is a program from outside: it may loop for ever, double a text until memory is full, or
raise anything. Knows Jinja; knows no models and no messages.
Reference: transformers' ``chat_template_utils``, whose extras templates rely on.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sized
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from jinja2 import Template, TemplateError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from bandweave.address_space import ADDRESS_SPACE

#: Lines and calls of a template, and so many more for each message.
_MOST_STEPS, _MOST_STEPS_A_MESSAGE = 500_000, 5_000
_MOST_COMPILE_STEPS = 5_000_000  # calls; the longest template in use takes some 200,000
_MOST_SECONDS, _MOST_SECONDS_A_MESSAGE = 1.0, 0.01  # of the processor, where steps are slow ones
_MOST_CHARACTERS = 64_000_000  # of the rendered text
_MOST_REPEATED = 1_000_000  # characters or items that one product makes
#: Bytes beyond what the process has, and so many more for each character of the messages.
_MOST_MEMORY, _MOST_MEMORY_A_CHARACTER = 256 << 20, 32
_MOST_BITS = 100_000  # of an integer that is multiplied or raised to a power
_STATM = Path("/proc/self/statm")


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of chat templates. ``now``: for those that write the date."""

    intercepted_binops = frozenset(("*", "**"))

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
        )
        self.filters["tojson"] = _to_json
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = lambda format: now().strftime(format)
        self.globals["namespace"] = _Namespace

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuses integers that take minutes to compute and texts that fill the memory."""
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * (abs(right) if operator == "**" else 1)
            if bits + right.bit_length() > _MOST_BITS:
                raise SecurityError("it computes with numbers of thousands of digits")
        elif operator == "*":
            for sequence, count in ((left, right), (right, left)):
                length = len(sequence) if isinstance(sequence, Sized) else 0
                if isinstance(count, int) and length * count > _MOST_REPEATED:
                    raise SecurityError("it repeats something too often")
        return super().call_binop(context, operator, left, right)


def compile_template(source: str, now: Callable[[], datetime]) -> Template:
    """A parsed template; any exception where it is none. Jinja computes constant expressions here,
    so the bounds hold here too."""
    with _memory_bounded(_MOST_MEMORY), _steps_bounded(_MOST_COMPILE_STEPS, 4 * _MOST_SECONDS):
        return Sandbox(now).from_string(source)


def variables_of(source: str, now: Callable[[], datetime]) -> frozenset[str]:
    """The names that a template looks up and does not define itself; any exception where it is no
    template."""
    with _memory_bounded(_MOST_MEMORY), _steps_bounded(_MOST_COMPILE_STEPS, 4 * _MOST_SECONDS):
        return frozenset(meta.find_undeclared_variables(Sandbox(now).parse(source)))


def render(template: Template, variables: Mapping[str, Any]) -> str:
    """The text of a template, whose variables are ``messages`` and others. Any exception where it
    goes wrong, or takes more than a conversation of that length can."""
    messages = variables["messages"]
    steps = _MOST_STEPS + _MOST_STEPS_A_MESSAGE * len(messages)
    seconds = _MOST_SECONDS + _MOST_SECONDS_A_MESSAGE * len(messages)
    memory = _MOST_MEMORY + _MOST_MEMORY_A_CHARACTER * sum(map(_characters, messages))
    pieces: list[str] = []
    size = 0
    with _memory_bounded(memory), _steps_bounded(steps, seconds):
        for piece in template.generate(dict(variables)):
            size += len(piece)
            if size > _MOST_CHARACTERS:
                raise TemplateError(f"it writes more than {_MOST_CHARACTERS} characters")
            pieces.append(piece)
    return "".join(pieces)


def _characters(message: Mapping[str, Any]) -> int:
    return sum(len(value) for value in message.values() if isinstance(value, str))


@contextlib.contextmanager
def _steps_bounded(most: int, seconds: float) -> Iterator[None]:
    """Ends what this thread runs after so many lines of templates and calls of functions, or after
    so long, which is looked at between them."""
    steps, end = 0, time.thread_time() + seconds

    def step(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps > most or (steps % 16 == 0 and time.thread_time() > end):
            raise TemplateError("it does not come to an end")
        return step if frame.f_code.co_filename == "<template>" else None

    before = sys.gettrace()
    sys.settrace(step)
    try:
        yield
    finally:
        sys.settrace(before)


@contextlib.contextmanager
def _memory_bounded(most: int) -> Iterator[None]:
    """Lets the process take only so much memory more meanwhile, where the system can tell how much
    it has: beyond that it gets a ``MemoryError``."""
    with ADDRESS_SPACE:
        yield from _bounded(most)


def _bounded(most: int) -> Iterator[None]:
    try:
        pages = int(_STATM.read_text().split()[0])
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        bound = pages * resource.getpagesize() + most
        if soft != resource.RLIM_INFINITY:
            bound = min(bound, soft)
        resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
    except (OSError, ValueError, IndexError):
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class _GenerationBlock(Extension):
    """``{% generation %}`` marks the assistant's words for training; here it does nothing."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """Keeps templates from names that Python itself uses."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # noqa: N805 - any name may be a keyword
        self, *rest = args
        for name in dict(*rest, **kwargs):
            _check_name(name)
        Namespace.__init__(self, *rest, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"it stores a name that starts with an underscore: {name[:40]!r}")


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML, which no model was trained on.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
