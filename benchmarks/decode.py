"""Decoding one answer: against the peers, against memory, linked against alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from benchmarks import cable, contestant, links
from benchmarks.contestant import Contestant, Sample
from benchmarks.models import Scale, Store
from benchmarks.peers.protocol import Work
from benchmarks.result import Figure, Result
from benchmarks.rounds import Entry, Rounds, run_rounds
from benchmarks.statistics import estimate, ratios

_SPEED = "decode_tokens_per_s"
_READ = "read_bytes_per_s"
_NOTE = (
    "The weights are the same byte for byte in bandweave's q4 and Q4_0, and in q8 and Q8_0, the "
    "output tensor included; keys and values are f16 everywhere. Every contestant of T threads has "
    "the same T processors. llama.cpp runs with its defaults, which here are flash attention, and "
    "without it. Nodes of one host share memory; those over veth, a virtual cable, talk "
    "over TCP."
)


def run(store: Store, scale: Scale) -> Result:
    figures: list[Figure] = []
    rounds: list[Rounds] = []
    for group in (_one_thread, _eight_bits, _two_threads, _long_context, _bf16):
        made, measured = group(store, scale)
        figures += made
        rounds.append(measured)
    return Result(
        experiment="decode",
        title=f"Decoding, {scale.model.name}",
        figures=figures,
        notes=(_NOTE,),
        rounds=[one.to_json() for one in rounds],
    )


_Found = tuple[list[Figure], Rounds]


def _one_thread(store: Store, scale: Scale) -> _Found:
    return _against_llama(store, scale, format="q4", threads=1, at_least=1.5)


def _eight_bits(store: Store, scale: Scale) -> _Found:
    return _against_llama(store, scale, format="q8", threads=1, at_least=1.3)


def _two_threads(store: Store, scale: Scale) -> _Found:
    """Two threads against llama.cpp's, and two linked nodes of one thread against both."""
    with ExitStack() as stack:
        folder, work = store.folder(scale.model), _work(scale)
        name = "2 nodes x 1 thread, shared memory"
        pairs = [contestant.bandweave(folder, context=work.context, nodes=2, name=name)]
        if not cable.why_not():
            laid = stack.enter_context(cable.lay())
            name = "2 nodes x 1 thread, TCP over veth"
            pairs.append(stack.enter_context(links.linked(laid, folder, work, name)))
        return _against_llama(store, scale, format="q4", threads=2, at_least=1.0, pairs=pairs)


def _against_llama(
    store: Store,
    scale: Scale,
    *,
    format: str,
    threads: int,
    at_least: float,
    pairs: Sequence[Contestant] = (),
) -> _Found:
    work = _work(scale)
    folder = store.folder(scale.model)
    read = contestant.plain_read(threads)
    ours = contestant.bandweave(folder, context=work.context, threads=threads, format=format)
    gguf = store.gguf(scale.model, format)
    theirs, plain = (
        contestant.llama_cpp(
            gguf, context=work.context, threads=threads, format=format, plain_attention=off
        )
        for off in (False, True)
    )
    entrants = [read, ours, *pairs, theirs, plain]
    nouns = "thread" if threads == 1 else "threads"

    def figures(rounds: Rounds) -> list[Figure]:
        speed = rounds.values(ours.name, _SPEED)
        title = f"decode {format}, {threads} {nouns}, over llama.cpp {theirs.format}"
        found = [
            Figure(
                title=title + after,
                estimate=estimate(ratios(speed, rounds.values(peer.name, _SPEED))),
                at_least=at_least,
            )
            for peer, after in ((theirs, ""), (plain, ", flash attention off"))
        ]
        found += [
            Figure(
                title=f"weight products {format}, {threads} {nouns}, over a plain read",
                estimate=estimate(ratios(rounds.values(ours.name, product_rate),
                                         rounds.values(read.name, _READ))),
                at_least=0.92,
            ),
        ]  # fmt: skip
        found += [
            Figure(
                title=f"decode {format}, {pair.name}, over 1 node x {threads} threads",
                estimate=estimate(ratios(rounds.values(pair.name, _SPEED), speed)),
                at_least=0.93,
            )
            for pair in pairs
        ]
        return found

    measured = _run(entrants, work, scale, f"decode {format} x {threads}", figures)
    speeds = [
        Figure(title=one.name, estimate=estimate(measured.values(one.name, _SPEED)),
               unit="tokens/s")
        for one in entrants[1:]
    ]  # fmt: skip
    reads = [value / 1e9 for value in measured.values(read.name, _READ)]
    speeds.append(Figure(title=read.name, estimate=estimate(reads), unit="GB/s"))
    return [*figures(measured), *speeds], measured


def _long_context(store: Store, scale: Scale) -> _Found:
    """What of a token's time is no weight product, around a context of 512 tokens."""
    half = scale.new_tokens // 2
    work = Work(prompt_tokens=scale.share_context - half, new_tokens=scale.new_tokens, keep=True)
    one = contestant.bandweave(store.folder(scale.model), context=work.context)

    def figures(rounds: Rounds) -> list[Figure]:
        return [
            Figure(
                title=f"outside weight products, q4, 1 thread, context {scale.share_context}",
                estimate=estimate([100 * value for value in rounds.values(one.name, rest_share)]),
                unit="%",
                at_most=10.0,
            )
        ]

    measured = _run([one], work, scale, "outside weight products", figures)
    return figures(measured), measured


def _bf16(store: Store, scale: Scale) -> _Found:
    """PyTorch has no faster precision than bf16 on a processor; bandweave's bf16 beside it."""
    folder, work = store.folder(scale.model), _work(scale, new_tokens=scale.new_tokens // 4)
    ours = contestant.bandweave(folder, context=work.context, threads=2, format="bf16")
    theirs = contestant.torch_bf16(folder, threads=2)

    def figures(rounds: Rounds) -> list[Figure]:
        speeds = [rounds.values(one.name, _SPEED) for one in (ours, theirs)]
        title = "decode bf16, 2 threads, over PyTorch and transformers"
        return [
            Figure(title=title, estimate=estimate(ratios(*speeds))),
            Figure(title=theirs.name, estimate=estimate(speeds[1]), unit="tokens/s"),
        ]

    measured = _run([ours, theirs], work, scale, "decode bf16", figures)
    return figures(measured), measured


def _work(scale: Scale, *, new_tokens: int | None = None) -> Work:
    return Work(
        prompt_tokens=scale.prompt_tokens, new_tokens=new_tokens or scale.new_tokens, keep=True
    )


def _run(
    entrants: list[Contestant],
    work: Work,
    scale: Scale,
    title: str,
    figures: Callable[[Rounds], list[Figure]],
) -> Rounds:
    entries = [Entry(contestant=one, work=work) for one in entrants]

    def settled(rounds: Rounds) -> bool:
        return all(figure.settled for figure in figures(rounds))

    return run_rounds(entries, scale.rounds, title=title, settled=settled)


def product_rate(sample: Sample) -> float:
    """Bytes of weights a second while weight products run, of all nodes together."""
    nodes = sample["bill"]["nodes"]
    return sum(
        read / node["weights"]
        for read, node in zip(sample["weight_bytes_by_node"], nodes, strict=True)
    )


def rest_share(sample: Sample) -> float:
    """The share of a token's time on node 0 that no weight product takes."""
    node = sample["bill"]["nodes"][0]
    return 1.0 - node["weights"] / node["wall"]
