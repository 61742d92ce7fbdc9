"""Options that several commands share, and what they mean to the engine.

Knows the spelling of options; opens no files but the token file, and starts nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bandweave.environment import read_environment
from bandweave.formats.names import AUTO, KV_FORMATS, RUN_FORMATS
from bandweave.run_options import MAX_NODES, RunOptions

if TYPE_CHECKING:
    from bandweave.engine.options import EngineOptions
    from bandweave.planning.profile.emulation import EmulatedLink

_SHARE = re.compile(r"-?\d{1,12}(\.\d{0,12})?", re.ASCII)

F = TypeVar("F", bound=Callable[..., Any])

encrypt_option = click.option(
    "--encrypt/--no-encrypt", "encrypt", default=None,
    help="Encrypt what crosses to and between --hosts or machines of a cluster, or do not: on a "
         "network that you trust. Default: all that leaves a machine is encrypted.",
)  # fmt: skip

_SPLIT = (
    click.option("--nodes", type=click.IntRange(1, MAX_NODES), metavar="N",
                 help="Split the model over N processes of this machine, in equal shares."),
    click.option("--shares", metavar="3,2,1",
                 help="One node for each number, which says how much of the model it holds."),
    click.option("--hosts", metavar="HOST:PORT,...",
                 help="Run on machines where `bandweave worker` listens, one node each."),
    click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE",
                 help="The secret that the workers at --hosts have."),
    encrypt_option,
    click.option("--stages", type=click.IntRange(1, MAX_NODES), metavar="S",
                 help="Pipeline stages: each holds a part of the layers. Default 1."),
    click.option("--threads", type=click.IntRange(1, 1024), metavar="T",
                 help="Threads of each node. Default: the processors, shared out."),
    click.option("--format", "weight_format", default=AUTO, metavar="FORMAT",
                 type=click.Choice(RUN_FORMATS),
                 help="Weights in memory: q4, q8, mxfp4, nf4, ulaw4, bf16 or f32; or stored, each "
                      "matrix in the one nearest to how the model stores it. Default: stored for a "
                      "GGUF file, else q4."),
    click.option("--kv", "kv_format", default="f16", metavar="FORMAT",
                 type=click.Choice(KV_FORMATS),
                 help="Keys and values in memory: f16 or f32. Default f16."),
    click.option("--wire", default="exact", metavar="FORMAT",
                 help="What crosses between nodes: exact; or bf16 or q8 for slow links, rounded, "
                      "which changes the answer. Default exact."),
    click.option("--emulate-link", metavar="LINK",
                 help="Let nodes of this machine talk as if LINK joined them: a name that `plan "
                      "--link` knows, or latency=300us,bandwidth=10Gbit/s."),
    click.option("--context", type=int, metavar="N",
                 help="Tokens of prompt and answer. Default: the model's, at most 4096."),
    click.option("--patience", type=click.FloatRange(0, 1e6), default=60.0, metavar="SECONDS",
                 help="How long to wait for a machine when nodes fail and those that are left "
                      "cannot hold the model. Default 60."),
    click.option("--no-cache", is_flag=True,
                 help="Neither read nor write the cache of packed weights."),
    click.option("--speculate", is_flag=False, flag_value="ngram", metavar="[HOW]",
                 type=click.Choice(("ngram", "mtp")),
                 help="Guess the next tokens and check several in a step; the answer is the same. "
                      "HOW: ngram (the default), by what followed the last ones before; or mtp, by "
                      "the layer for it that some models have."),
    click.option("--draft", metavar="MODEL",
                 help="Let this smaller model of the same vocabulary guess them."),
    click.option("--draft-tokens", type=int, metavar="K",
                 help="Guess at most K tokens at a time. Default 8; fewer where it pays more."),
    click.option("--isa", hidden=True, help="The kernel variant, in the place of the fastest."),
)  # fmt: skip

_CLUSTER = (
    click.option("--cluster", is_flag=False, flag_value="", metavar="[HOST:PORT]",
                 help="Run on the machines that joined the head at HOST:PORT (--token-file has its "
                      "secret); without an address, the head that `bandweave up` started here."),
    click.option("--cluster-listen", metavar="HOST:PORT",
                 help="Let machines join here (`bandweave worker --join`), and run on them; "
                      "--token-file has the secret that they need."),
)  # fmt: skip

_LASTING = (
    click.option("--replicas", default="1", metavar="R",
                 help="Divide the nodes into R groups that each hold the whole model; the answers "
                      "of one that loses a node go on at another. auto: as many as pay, by what "
                      "`bandweave probe` measured. Default 1."),
    click.option("--spare", type=click.IntRange(0, MAX_NODES), default=0, metavar="K",
                 help="Hold K nodes ready that take the place of others that fail: the last K of "
                      "--hosts, K machines of a cluster, or K processes more."),
    click.option("--standby-weights", type=click.Choice(("memory", "disk")),
                 help="Let every node hold ready, in memory or in its cache on disk, what it would "
                      "need if any other failed; the server tells how much that is."),
)  # fmt: skip


def stacked(options: tuple[Callable[[F], F], ...], function: F) -> F:
    """A command with these options, which its help lists in this order."""
    for option in reversed(options):
        function = option(function)
    return function


def split_options(function: F) -> F:
    """How the model is split and stored; see ``engine_options``."""
    return stacked(_SPLIT, function)


def cluster_options(function: F) -> F:
    """The machines of a cluster; see ``cli.gathering``."""
    return stacked(_CLUSTER, function)


def lasting_options(function: F) -> F:
    """How a server outlives its machines; see ``engine_options``."""
    return stacked(_LASTING, function)


def json_option(function: F) -> F:
    """``--json``, as ``as_json``."""
    text = "Print one JSON object on standard output, and nothing else there."
    return click.option("--json", "as_json", is_flag=True, help=text)(function)


def engine_options(values: dict[str, Any], *, nodes: int = 1) -> EngineOptions:
    """What the values of ``split_options`` ask for; ``nodes`` where none of them says how many.

    ``ValueError`` where they contradict each other.
    """
    if values.get("cluster") is not None or values.get("cluster_listen") is not None:
        return _for_a_cluster(values)
    hosts, secret = hosts_and_secret(values["hosts"], values["token_file"])
    return _options(values, hosts, secret, nodes)


def _for_a_cluster(values: dict[str, Any]) -> EngineOptions:
    """What is known before the machines of a cluster have joined; the rest is a ``Wish``, see
    ``cli.gathering``."""
    if values["hosts"] is not None:
        raise ValueError("--hosts names machines, and a cluster has its own; give one of them")
    if values["emulate_link"] is not None:
        raise ValueError("--emulate-link is for nodes of this machine, not for a cluster's")
    alone = {**values, "nodes": None, "shares": None, "stages": None, "threads": None, "isa": None,
             "replicas": "1", "spare": 0, "encrypt": None}  # fmt: skip
    # As of a host: its threads and kernels are for its worker to say.
    options = _options(alone, (), None, 1)
    return replace(
        options,
        threads=values["threads"],
        run=replace(options.run, isa=usable_isa(values["isa"], ("a member",))),
    )


def _options(
    values: dict[str, Any], hosts: tuple[str, ...], secret: bytes | None, nodes: int
) -> EngineOptions:
    from bandweave.engine.options import EngineOptions

    spare = values.get("spare", 0)
    if hosts and spare >= len(hosts):
        raise ValueError(
            f"--spare {spare} of {len(hosts)} hosts leaves none for the model; the last hosts of "
            "--hosts are the spare ones, so give more hosts or a smaller --spare"
        )
    hosts, spare_hosts = hosts[: len(hosts) - spare], hosts[len(hosts) - spare :]
    return EngineOptions(
        shares=_shares(values["nodes"], values["shares"], len(hosts), nodes),
        fit=bool(hosts) and values["shares"] is None,
        stages=values["stages"] or 1,
        hosts=hosts,
        secret=secret,
        encryption=encryption_of(values["encrypt"]),
        threads=values["threads"] if hosts else usable_threads(values["threads"]),
        run=RunOptions(
            weight_format=values["weight_format"],
            kv_format=values["kv_format"],
            context=values["context"],
            isa=usable_isa(values["isa"], hosts),
            wire=values["wire"],
            **_speculation(values),
        ),
        emulate=_emulated(values["emulate_link"]),
        patience=values["patience"],
        replicas=replica_count(values.get("replicas", "1")),
        spare=spare,
        spare_hosts=spare_hosts,
        standby=values.get("standby_weights") or "",
        cache=not values["no_cache"],
        cache_folder="" if values["no_cache"] else cache_folder(),
        draft="" if values["draft"] is None else _draft_folder(values["draft"]),
    )


def replica_count(text: str) -> int:
    """How many groups; 0 where that is left to the planner."""
    if text == "auto":
        return 0
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= MAX_NODES):
        raise ValueError(f"--replicas is {text[:40]!r}; it must be auto, or from 1 to {MAX_NODES}")
    return int(text)


def usable_threads(asked: int | None) -> int | None:
    """As many threads of one node as were asked for, or as this machine has processors for, with a
    remark where those are fewer: more would only wait for each other."""
    from bandweave.cli import output
    from bandweave.host.machine import usable_cpus

    most = len(usable_cpus())
    if asked is None or asked <= most:
        return asked
    output.say(
        f"(--threads {asked}: {output.count(most, 'processor')} can be used here, so {most})"
    )
    return most


def hosts_and_secret(
    hosts: str | None, token_file: Path | None
) -> tuple[tuple[str, ...], bytes | None]:
    """The addresses of ``--hosts`` and the secret of ``--token-file``."""
    from bandweave.cli.remarks import remark
    from bandweave.handshake.secret import read_secret

    addresses = tuple(text.strip() for text in (hosts or "").split(",") if text.strip())
    if hosts is not None and not addresses:
        raise ValueError("--hosts names no host; give host:port of every worker, with commas")
    if addresses and token_file is None:
        raise ValueError(
            "--hosts needs --token-file, the file with the secret that the workers were given"
        )
    if token_file is not None and not addresses:
        raise ValueError("--token-file is for --hosts; nodes of this machine need none")
    return addresses, None if token_file is None else read_secret(token_file, remark)


def encryption_of(encrypt: bool | None) -> str:
    """What ``--encrypt`` or its absence asks for."""
    from bandweave.handshake.encryption import ALWAYS, AUTO, NEVER

    return AUTO if encrypt is None else ALWAYS if encrypt else NEVER


def parse_shares(text: str) -> tuple[Fraction, ...]:
    """``3,2,1`` or ``1.5,1``; whether the numbers make sense as shares is the plan's business."""
    if not text.strip():
        raise ValueError("--shares is empty; write one number for each node, for example 3,2,1")
    shares = []
    for part in text.split(","):
        letters = part.strip()
        if not _SHARE.fullmatch(letters):
            raise ValueError(
                f"--shares {text}: {letters!r} is not a number; write one number for each node, "
                "for example 3,2,1"
            )
        shares.append(Fraction(letters))
    return tuple(shares)


def _shares(
    nodes: int | None, text: str | None, num_hosts: int, default: int
) -> tuple[Fraction, ...]:
    shares = None if text is None else parse_shares(text)
    counts = {
        "--nodes": nodes,
        "--shares": None if shares is None else len(shares),
        "--hosts": num_hosts or None,
    }
    given = {name: number for name, number in counts.items() if number is not None}
    if len(set(given.values())) > 1:
        words = " and ".join(f"{name} says {number}" for name, number in given.items())
        raise ValueError(f"how many nodes? {words}; give one of them, or the same number")
    if shares is not None:
        return shares
    return (Fraction(1),) * next(iter(given.values()), default)


def _speculation(values: dict[str, Any]) -> dict[str, Any]:
    """``--draft`` alone says enough; ``ValueError`` where the options contradict each other."""
    draft, tokens, how = values["draft"], values["draft_tokens"], values["speculate"]
    if draft is not None and how == "mtp":
        raise ValueError("--speculate mtp and --draft are two ways to guess; give one of them")
    kind = "draft" if draft is not None else how or "off"
    if kind == "off" and tokens is not None:
        raise ValueError("--draft-tokens is for --speculate or --draft; give one of them too")
    return {"speculate": kind} | ({} if tokens is None else {"draft_tokens": tokens})


def _draft_folder(model: str) -> str:
    from bandweave.hub.resolve import resolve_model

    return str(resolve_model(model))


def _emulated(text: str | None) -> EmulatedLink | None:
    from bandweave.planning.profile.emulation import emulated_link

    return None if text is None else emulated_link(text)


def cache_folder() -> str:
    """Where this machine keeps packed weights; empty for nowhere. ``ValueError`` for a folder that
    holds anything else."""
    from bandweave.weights.cache_folder import default_folder

    return default_folder()


def usable_isa(name: str | None, hosts: Sequence[str] = ()) -> str:
    """The kernel variant that was asked for, by name or by the environment, which speaks for this
    machine alone; empty for the fastest. ``ValueError`` where this processor has none like it."""
    name = name or ("" if hosts else read_environment().isa)
    if name:
        from bandweave import _native

        usable = _native.isa_variants()
        if name not in usable:
            raise ValueError(
                f"the kernel variant {name!r} is not one of this processor's: {', '.join(usable)}"
            )
    return name
