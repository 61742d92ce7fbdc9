"""Which options of ``plan`` go together: what would be ignored is refused. Pure."""

from __future__ import annotations

from collections.abc import Collection

#: Options that say something only beside another: the other, and what it is about.
_BESIDE = {
    "replicas": "simulate", "arrivals": "simulate", "requests": "simulate",
    "seconds": "simulate", "uptime": "simulate", "repair": "simulate", "seed": "simulate",
    "silent": "simulate", "spares": "simulate", "standby_weights": "simulate",
    "load_rate": "simulate", "no_takeover": "simulate", "no_encrypt": "simulate",
    "turns": "users", "reuse": "users", "prefix": "users",
}  # fmt: skip

#: Options of a simulation about machines that fail.
_FAILURES = ("repair", "silent", "spares", "standby_weights", "load_rate", "no_takeover")

#: Pairs that exclude each other, with what to do.
_APART = {
    ("simulate", "compare"): "a simulation plays one setup; run it once for each",
    ("simulate", "sweep"): "a simulation plays one setup; run it once for each value",
    ("simulate", "page"): "the page shows answers and sweeps; --chart draws a simulation",
    ("simulate", "users"): "a simulation has --streams and --arrivals in their place",
    ("simulate", "power_price"): "a simulation counts no money",
    ("sweep", "users"): "a conversation is no sweep; give one of them",
    ("sweep", "power_price"): "a sweep shows no money; the answer without --sweep does",
    ("users", "streams"): "each of the users is a stream; give --users alone",
    ("users", "context"): "the conversation says how long the context gets; see --turns",
    ("requests", "seconds"): "the simulation ends after one of them",
}

#: Without a MODEL the known ones that fit are listed: what has nothing to do there.
_NEEDS_MODEL = ("compare", "sweep", "simulate", "page", "users", "power_price", "answer")


def refuse_ignored(given: Collection[str], *, model: bool, objective: str) -> None:
    """``ValueError`` where one of the ``given`` options (by their names in the command) would be
    ignored."""
    if "listed" in given:
        others = [name for name in given if name != "listed"]
        if others:
            raise ValueError(
                f"--list shows what is known, by itself; leave out {option(others[0])}"
            )
        return
    if "claims" in given:
        others = [name for name in given if name != "claims"]
        if model or others:
            what = option(others[0]) if others else "a MODEL"
            raise ValueError(f"--claims answers by itself; leave out {what}")
        return
    if not model:
        for name in _NEEDS_MODEL:
            if name in given and not (name == "answer" and _counts_answer(given, objective)):
                raise ValueError(
                    f"{option(name)} needs a MODEL; without one the known models that fit are "
                    "listed"
                )
    for name, other in _BESIDE.items():
        if name in given and other not in given:
            raise ValueError(f"{option(name)} is for {option(other)}; give that too")
    for name in _FAILURES:
        if name in given and "uptime" not in given:
            raise ValueError(f"{option(name)} is for machines that fail; give their --uptime too")
    for (one, other), words in _APART.items():
        if one in given and other in given:
            raise ValueError(f"{option(one)} and {option(other)} do not go together: {words}")
    if {"sweep", "answer"} <= {*given} and not _counts_answer(given, objective):
        raise ValueError("--answer changes nothing in this sweep; with --objective request it does")


def option(name: str) -> str:
    """An option as it is typed."""
    special = {
        "page": "html",
        "format_name": "format",
        "links": "link",
        "as_json": "json",
        "listed": "list",
        "spares": "spare",
    }
    return f"--{special.get(name, name).replace('_', '-')}"


def _counts_answer(given: Collection[str], objective: str) -> bool:
    # Beside a prompt it says how long the context gets.
    return objective == "request" or ("prompt" in given and "context" not in given)
