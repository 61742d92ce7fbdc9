"""Links by name, as LinkRates: latency and rate with their ranges. Pure but for packaged data."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import lru_cache

from bandweave.matching import Matcher, Named
from bandweave.planning.machines.quantities import quantity
from bandweave.planning.machines.rates import Estimate, LinkRates
from bandweave.planning.machines.tables import Row, required, rows

_FIELDS = ("latency", "bandwidth", "message", "name", "duplex", "shared", "crossings")
_PASSED_OVER = (
    "link network cable over ethernet lan gbit gbps gb g s bit between nvidia mellanox switch "
    "direct attach the a with apple"
)


def link_names() -> tuple[str, ...]:
    return tuple(_table())


def find_link(name: str) -> LinkRates:
    """The link of that name or alias; ``ValueError`` with near names."""
    row = _row(name)
    scale = 1e-6
    return LinkRates(
        name=row["name"],
        latency_s=Estimate(
            likely=required(row, "latency_us") * scale,
            low=required(row, "latency_low_us") * scale,
            high=required(row, "latency_high_us") * scale,
        ),
        bytes_per_s=Estimate(
            likely=required(row, "rate_gb_per_s") * 1e9,
            low=required(row, "rate_low_gb_per_s") * 1e9,
            high=required(row, "rate_high_gb_per_s") * 1e9,
        ),
        message_s=Estimate.within(required(row, "message_us") * scale, 2.0),
        channel=row["channel"] or "",
        crossings=int(row["crossings"] or 1),
        half_duplex=row["duplex"] == "half",
        source=f"{row['confidence']}; {row['source']}",
    )


def link_title(name: str) -> str:
    return _row(name)["title"]


def link_shares_port(name: str) -> bool:
    """Whether a node's links of this kind share one port (a switch) rather than a cable each."""
    return _row(name)["shared_port"] == "1"


def link_needs(name: str) -> str:
    """What machines must have for it: ``port`` (Ethernet), ``slot`` (a network card), ``rdma`` (a
    card and a system that offers it), ``bus`` or ``nvlink`` (cards of one machine), a cable's
    kind, or ``air``, ``powerline``, ``wan``, ``cloud``, ``host``."""
    return _row(name)["needs"] or "port"


def link_from_text(text: str) -> LinkRates:
    """A name, or ``latency=300us,bandwidth=40Gbit/s``, one way; also ``message=8us``,
    ``duplex=half``, and for a medium that all share ``shared=yes`` with ``crossings=2`` where each
    frame crosses it twice, as over a Wi-Fi access point."""
    if "=" not in text:
        return find_link(text)
    fields: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        if not equals or key not in _FIELDS:
            raise ValueError(
                f"{part.strip()!r} in {text!r} is no field of a link, which are "
                f"{', '.join(f'{name}=...' for name in _FIELDS)}"
            )
        fields[key] = value.strip()
    for key in ("latency", "bandwidth"):
        if key not in fields:
            raise ValueError(f"the link lacks {key}=..., in {text!r}")
    message = quantity(fields["message"], "s", what="message") if "message" in fields else 0.0
    shared = _choice(fields, "shared", ("no", "yes")) == "yes"
    crossings = int(_choice(fields, "crossings", ("1", "2")))
    if crossings > 1 and not shared:
        raise ValueError(f"crossings=2 in {text!r} is for a shared medium; add shared=yes")
    half = _choice(fields, "duplex", ("full", "half")) == "half"
    name = fields.get("name", "custom")
    return LinkRates(
        name=name,
        latency_s=Estimate.exactly(quantity(fields["latency"], "s", what="latency")),
        bytes_per_s=Estimate.exactly(quantity(fields["bandwidth"], "B/s", what="bandwidth")),
        message_s=Estimate.exactly(message),
        channel=name if shared else "",
        crossings=crossings,
        half_duplex=half or shared,
        source="the user",
    )


def link_matches(words: str) -> list[str]:
    """The links that have all of the words, or that they mean; ``ValueError`` with near names."""
    return _matcher().containing(words) or [_row(words)["name"]]


def _choice(fields: Mapping[str, str], name: str, values: tuple[str, ...]) -> str:
    """One of the values; the first where the field is not there."""
    value = fields.get(name, values[0]).lower()
    if value not in values:
        raise ValueError(f"{name} is {value!r}; it must be {' or '.join(values)}")
    return value


def _row(name: str) -> Row:
    table, aliases = _table(), _aliases()
    key = name.strip().lower().replace(" ", "-").replace("_", "-")
    key = aliases.get(key, key)
    if key not in table:
        found = _matcher().find(name)
        if found is not None:
            return table[found.key]
        alike = difflib.get_close_matches(key, [*table, *aliases], n=2, cutoff=0.5)
        near = list(dict.fromkeys([*alike, *_matcher().near(name)]))[:4]
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"no link is called {name!r}; {hint}`plan --list links WORDS` finds names")
    return table[key]


@lru_cache(maxsize=1)
def _matcher() -> Matcher:
    """Finds links by the words of their names, in any order."""
    names = []
    for row in _table().values():
        spelt = (row["name"], *row["aliases"].split())
        beside = "(rdma)" if "rdma" in row["title"].lower() else "(tcp) (ip)"
        texts = tuple(f"{text.replace('-', ' ')} {beside}" for text in spelt)
        names.append(Named(key=row["name"], spellings=texts))
    return Matcher(names, passed_over=_PASSED_OVER.split())


@lru_cache(maxsize=1)
def _table() -> Mapping[str, Row]:
    return {row["name"]: row for row in rows("links")}


@lru_cache(maxsize=1)
def _aliases() -> Mapping[str, str]:
    return {alias: row["name"] for row in rows("links") for alias in row["aliases"].split()}
