"""``bandweave plan`` in the process of a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from bandweave.cli.main import cli, explain


class PlanCommand:
    """Runs ``plan``; gives what it wrote to standard output, or the sentence of a mistake."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.remarks = ""

    def __call__(self, *arguments: str | Path) -> str:
        self._capsys.readouterr()
        with cli.make_context("bandweave", ["plan", *map(str, arguments)]) as context:
            cli.invoke(context)
        captured = self._capsys.readouterr()
        self.remarks = captured.err
        return captured.out

    def mistake(self, *arguments: str | Path) -> str:
        with pytest.raises(Exception) as caught:
            self(*arguments)
        status, sentence = explain(caught.value)
        assert status == 2, sentence
        assert "unforeseen" not in sentence and "\n" not in sentence
        return sentence


def narrow(text: str) -> bool:
    """Whether it reads well at 80 columns."""
    return all(len(line) <= 80 for line in text.splitlines())


def flowing(text: str) -> str:
    """Without line breaks, to look for sentences in."""
    return " ".join(text.split())
