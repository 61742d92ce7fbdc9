"""``plan --claims``: the checked claims, as the document ``docs/claims.md`` or as JSON."""

from __future__ import annotations

import textwrap
from dataclasses import asdict

from bandweave.cli import output
from bandweave.planning.claims.claim_checks import R1, ULTRA, planned
from bandweave.planning.claims.claims import check_claims, link_effects, one_machine_speed
from bandweave.planning.costs.software import software_title

_WIDTH = 100


def show_claims(*, as_json: bool) -> None:
    """All of them."""
    if as_json:
        output.print_json({
            "claims": [asdict(claim) for claim in check_claims()],
            "links": [asdict(effect) for effect in link_effects()],
        })  # fmt: skip
    else:
        output.print_text(claims_document().rstrip("\n"))


def claims_document() -> str:
    """The document in Markdown."""
    claims = check_claims()
    lines = ["# Two desktop machines and a cable: what holds", ""]
    lines += _folded(
        "People argued about joining two Mac Studio M3 Ultra (80-core GPU, 512 GB each) by an 80 "
        "Gbit/s cable to run a large language model at home. Here is every claim, in our words, "
        "with the command that checks it and what comes out. This page is made by `bandweave plan "
        "--claims`; a test keeps it true. Speeds are those of the best software that exists, "
        f"{_engines()}, with one stream and 4096 tokens of context; bandweave itself runs DeepSeek "
        "R1 on processors alone."
    )
    lines += ["", "| # | claim | verdict |", "| --- | --- | --- |"]
    lines += [f"| {c.number} | {c.claim} | **{c.verdict}** |" for c in claims]
    lines.append("")
    for claim in claims:
        lines += [f"## {claim.number}. {claim.verdict.capitalize()}", ""]
        lines += ["> " + line for line in _folded(claim.claim, _WIDTH - 2)]
        lines += ["", *_folded(claim.reason), "", f"    {claim.command}", ""]
    lines += ["## What decides: latency, not bandwidth", ""]
    lines += _folded(
        "DeepSeek R1 in 4 bits, tensor split over the two machines with MLX, and four imagined "
        f"links. One machine alone comes to {one_machine_speed():.1f} tokens/s."
    )
    lines += ["", "| link | latency | bandwidth | tokens/s |", "| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {effect.name} | {effect.latency_us:.0f} µs | {effect.gb_per_s:.1f} GB/s | "
        f"{effect.tokens_per_s:.1f} |"
        for effect in link_effects()
    ]
    return "\n".join(lines) + "\n"


def _engines() -> str:
    """What the speeds on M3 Ultra are with."""
    names = dict.fromkeys(
        planned(R1, format_name, machines).setup.engine.name
        for format_name, machines in (
            ("q8", (ULTRA, ULTRA)),
            ("q4", (ULTRA, ULTRA)),
            ("q4", (ULTRA,)),
        )
    )
    return " or ".join(software_title(name) for name in names)


def _folded(text: str, width: int = _WIDTH) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
