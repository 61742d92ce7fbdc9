"""Answer: what the readers of one answer share."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bandweave.serving.answers.marks import Marks
from bandweave.serving.answers.reader import Reader
from bandweave.serving.answers.sink import Call, Sink
from bandweave.serving.answers.syntax import Syntax

TOOL = re.compile(r"[\w.:/\-]{1,256}")
"""A tool's name."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """``mark`` makes literals of a syntax what stands for them in the text."""

    reader: Reader
    sink: Sink
    syntax: Syntax
    mark: Marks

    @property
    def enough(self) -> bool:
        """Whether the calls are as many as there may be."""
        return 0 < self.syntax.most_calls <= self.sink.calls

    def call(self) -> Call:
        """A call that may begin. Once it is told, no reader goes back behind it."""
        return Call(self.sink, self.reader.forget)
