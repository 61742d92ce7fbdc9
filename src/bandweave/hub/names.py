"""HubName: what a user may write for a model of the hub, taken apart. Asks nobody.

``org/name``, with ``:revision`` (or ``@revision``) behind it, which may be a quantisation of the
repository's GGUF files instead (``:Q4_K_M``), and with ``/file.gguf``; addresses of the hub's pages
as browsers show them, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from bandweave.hub.refusals import HubError
from bandweave.shown import shown

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_NAME = re.compile(
    rf"(?P<repo>{_PART}/{_PART})"
    r"(?:[:@](?P<revision>[A-Za-z0-9][\w./-]*?))?"
    r"(?:/(?P<file>[\w][\w./+ -]*\.gguf))?",
    re.ASCII | re.IGNORECASE,
)
_PAGE = re.compile(
    r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co|hf-mirror\.com)/(?P<repo>[^/?#]+/[^/?#:@]+)"
    r"(?:[:@](?P<tag>[^/?#]+))?"
    r"(?:/(?:tree|blob|resolve)/(?P<revision>[^/?#]+))?(?:/(?P<file>[^?#]*))?(?:[?#].*)?",
    re.ASCII | re.IGNORECASE,
)
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class HubName:
    """``revision``: a branch, a tag or a commit, empty for the main one; ``file``: a path in the
    repository, empty where none is named."""

    repo: str
    revision: str = ""
    file: str = ""

    @property
    def is_commit(self) -> bool:
        """Whether the revision is one that never changes."""
        return _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        revision = f":{self.revision}" if self.revision else ""
        return f"{self.repo}{revision}" + (f"/{self.file}" if self.file else "")


def parse_name(text: str) -> HubName | None:
    """What ``text`` names at the hub; None where it has no such form. ``HubError`` for an address
    there that is of no model."""
    text = text.strip()
    text = text[5:] if text.startswith("hf://") else text
    if match := _PAGE.fullmatch(text):
        repo, file = match["repo"], unquote(match["file"] or "").strip("/")
        if repo.split("/")[0] in ("datasets", "spaces", "collections", "papers"):
            raise HubError(f"{shown(text)} is the address of no model; name one as org/name")
        file = file if file.lower().endswith(".gguf") else ""
        text = repo + (f":{match['revision'] or match['tag']}" if match["revision"] or match["tag"]
                       else "") + (f"/{file}" if file else "")  # fmt: skip
    match = _NAME.fullmatch(text)
    if match is None or ".." in text or "//" in text:
        return None
    repo = match["repo"]
    return HubName(repo=repo, revision=match["revision"] or "", file=match["file"] or "")
