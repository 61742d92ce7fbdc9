"""``python -m benchmarks.plan_documents``: writes what ``bandweave plan`` says into the documents.

After a change of catalogue, calibration or report: docs/claims.md, and every example that begins
with ``$ bandweave plan`` in the pages; and the packaged table of published measurements. Tests
compare them with what comes out.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

from bandweave.cli.main import cli
from bandweave.cli.plan.claims import claims_document
from benchmarks.published import TABLE, published_table

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/planning.md")
_EXAMPLE = re.compile(r"```\n\$ bandweave (plan .*)\n(?:.*\n)*?```\n")


def main() -> None:
    TABLE.write_text(published_table(), "utf-8")
    (ROOT / "docs/claims.md").write_text(claims_document(), "utf-8")
    for page in PAGES:
        text = (ROOT / page).read_text("utf-8")
        (ROOT / page).write_text(_EXAMPLE.sub(_example, text), "utf-8")


def _example(match: re.Match[str]) -> str:
    shown = io.StringIO()
    with (
        contextlib.redirect_stdout(shown),
        cli.make_context("bandweave", shlex.split(match[1])) as context,
    ):
        cli.invoke(context)
    return f"```\n$ bandweave {match[1]}\n{shown.getvalue().rstrip()}\n```\n"


if __name__ == "__main__":
    main()
