"""What the hub's refusals mean, each in one sentence that says what to do. Opens nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bandweave.checkpoints.source import CheckpointError
from bandweave.shown import shown

_RATE_LIMIT = re.compile(r'"\w+"\s*;\s*r\s*=\s*\d+\s*;\s*t\s*=\s*(\d+)')
_LOG_IN = "log in with `hf auth login` or set HF_TOKEN"
_MOST_LETTERS = 200


class HubError(CheckpointError):
    """What the hub does not give; says what to do."""


class Unreachable(HubError):
    """The hub was not reached, or is not to be: what is here already may do."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is asked for; ``logged_in``: whether a token goes with the question."""

    endpoint: str
    repo: str
    revision: str = ""
    path: str = ""
    logged_in: bool = False

    @property
    def page(self) -> str:
        """Where a person reads about it."""
        return f"{self.endpoint}/{self.repo}"


def refusal(status: int, headers: Mapping[str, str], subject: Subject) -> HubError:
    """The error that an answer of this ``status`` stands for."""
    code = headers.get("x-error-code", "")
    text = headers.get("x-error-message", "")[:_MOST_LETTERS]
    said = f" ({shown(text)})" if text else ""
    repo, page = subject.repo, subject.page
    if code == "GatedRepo":
        if subject.logged_in:
            return HubError(
                f"{repo} is given to those alone who accept its terms, and this account has not "
                f"been let in: accept them at {page} (some authors look at each request), then "
                "try again"
            )
        return HubError(
            f"{repo} is given to those alone who accept its terms: accept them at {page}, then "
            f"{_LOG_IN}"
        )
    if "disabled" in text.lower():
        return HubError(f"{repo} has been disabled at the hub{said}; use another model")
    if code == "RevisionNotFound":
        return HubError(
            f"{repo} has no revision {shown(subject.revision)}; {page}/tree/main lists its "
            "branches, or leave the revision out"
        )
    if code == "EntryNotFound":
        return HubError(
            f"{repo} has no file {shown(subject.path)} at {subject.revision}; see {page}/tree/main"
        )
    if status == 401 and subject.logged_in and code != "RepoNotFound":
        return HubError(f"the hub does not take this token{said}; {_LOG_IN} anew")
    if status in (401, 404):
        also = (
            "or one that this account may not read; check the name"
            if subject.logged_in
            else f"or it is private; check the name, or {_LOG_IN}"
        )
        return HubError(f"{subject.endpoint} has no model {repo}, {also}")
    if status == 403:
        return HubError(f"the hub refuses {repo}{said}; see {page}")
    return HubError(f"the hub answers {status} about {repo}{said}; see {page}")


def wait_seconds(headers: Mapping[str, str]) -> float | None:
    """How long an answer asks to wait, where it does."""
    later = headers.get("retry-after", "").strip()
    if later.isascii() and later.isdigit() and len(later) < 7:
        return float(later)
    if match := _RATE_LIMIT.search(headers.get("ratelimit", "")):
        return float(match[1][:6]) + 1.0
    return None


def busy(status: int, endpoint: str, seconds: float | None) -> HubError:
    """The error for a hub that asked to wait, or failed, more often than it was asked again."""
    if status == 429:
        when = "in some minutes" if seconds is None else f"in {seconds:.0f} s"
        return HubError(
            f"{endpoint} has had too many requests from here; try again {when}, with what came so "
            f"far kept, or {_LOG_IN} to be allowed more"
        )
    return Unreachable(
        f"{endpoint} answers {status}, it is out of order; try again later: what came so far is "
        "kept"
    )
