"""Remarks: what is worth knowing once a command has done its work, and no reason to fail.

A command that fails says why in one sentence, and nothing beside it.
"""

from __future__ import annotations

import click

from bandweave.cli import output

_KEY = "bandweave.remarks"


def remark(sentence: str) -> None:
    """Says a sentence on standard error at the end of the command, if that goes well."""
    context = click.get_current_context(silent=True)
    if context is None:
        output.say(f"({sentence})")
    else:
        context.meta.setdefault(_KEY, []).append(sentence)


def say_remarks(context: click.Context) -> None:
    """Says what there is to remark on a command that has gone well."""
    for sentence in context.meta.pop(_KEY, ()):
        output.say(f"({sentence})")
