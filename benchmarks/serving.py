"""Serving many streams at a time: against llama-server, and linked against alone.

Total tokens per second of every width, the times to first tokens and between tokens, and how those
who listen fare while a long prompt arrives. Knows what is compared; knows no sockets.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from benchmarks import load, servers
from benchmarks.load import Ask, Heard
from benchmarks.models import Scale, Store
from benchmarks.result import Figure, Result
from benchmarks.rounds import order, say
from benchmarks.servers import Server
from benchmarks.statistics import estimate, ratios

_WIDTHS = {1: 1.1, 4: 1.5, 16: 1.5, 64: 1.3}  # and what is asked over llama-server
_LINKED = 0.93  # two nodes of one thread over one of two
_PROMPT, _LONG_PROMPT, _LONG_WIDTH = 32, 4000, 4
_THREADS = 2
_NOTE = (
    "Every stream is one completion over HTTP, of a prompt of its own, greedy. All servers have "
    "the same two processors, which the client shares. The weights are the same: q4 and Q4_0."
)


def run(store: Store, scale: Scale) -> Result:
    quick = scale.prefill_tokens < 512
    folder, gguf = store.folder(scale.model), store.gguf(scale.model, "q4")
    binary = servers.build_llama_server(store.path / "llama-server")
    widths = [width for width in _WIDTHS if not quick or width <= 4]
    context = 256
    ours = servers.bandweave(folder, streams=max(widths), context=context, threads=_THREADS)
    linked = servers.bandweave(folder, streams=max(widths), context=context, nodes=2)
    llama = servers.llama_server(
        binary, gguf, streams=max(widths), context=context, threads=_THREADS
    )
    vocab_size = store.vocab_size(scale.model)
    rounds = max(2, scale.rounds // 3)
    figures: list[Figure] = []
    found: list[dict[str, object]] = []
    for width in widths:
        asks = [Ask(prompt_tokens=_PROMPT, new_tokens=_new_tokens(width), seed=seed)
                for seed in range(width)]  # fmt: skip
        heard = _rounds([ours, linked, llama], asks, rounds, vocab_size, f"{width} streams")
        figures += _throughput(width, heard, (ours, linked, llama))
        found.append({"width": width, "heard": {name: _plain(all) for name, all in heard.items()}})
    long_context = _LONG_PROMPT + 256
    pair = [
        servers.bandweave(folder, streams=_LONG_WIDTH + 1, context=long_context, threads=_THREADS),
        servers.llama_server(
            binary, gguf, streams=_LONG_WIDTH + 1, context=long_context, threads=_THREADS
        ),
    ]
    figures += _long_prompt(pair, max(1, rounds // 2), vocab_size, quick)
    return Result(
        experiment="serving",
        title=f"Serving, {scale.model.name}",
        figures=figures,
        notes=(_NOTE,),
        rounds=found,
    )


def _new_tokens(width: int) -> int:
    return 64 if width <= 4 else 48 if width <= 16 else 32


def _rounds(
    contestants: Sequence[Server], asks: Sequence[Ask], rounds: int, vocab_size: int, title: str
) -> dict[str, list[list[Heard]]]:
    """Of every server, what was heard in each sample: two a round, forwards and backwards."""
    heard: dict[str, list[list[Heard]]] = {one.name: [] for one in contestants}
    with ExitStack() as stack:
        ports = [stack.enter_context(servers.running(one)) for one in contestants]
        for port in ports:
            load.load(port, asks[:1], vocab_size)
        for number in range(rounds):
            say(f"serving {title}: round {number + 1} of {rounds}")
            for index in order(len(contestants)):
                heard[contestants[index].name].append(load.load(ports[index], asks, vocab_size))
    return heard


def _speed(sample: Sequence[Heard]) -> float:
    """Tokens per second of all streams together."""
    seconds = max(one.came[-1] for one in sample) - min(one.asked for one in sample)
    return sum(one.tokens for one in sample) / seconds


def _throughput(
    width: int, heard: dict[str, list[list[Heard]]], names: tuple[Server, Server, Server]
) -> list[Figure]:
    ours, linked, llama = ([_speed(sample) for sample in heard[server.name]] for server in names)
    title = f"{width} stream{'s' * (width > 1)}"
    figures = [
        Figure(title=f"{title}, over llama-server", estimate=estimate(ratios(ours, llama)),
               at_least=_WIDTHS[width]),
        Figure(title=f"{title}, 2 nodes of 1 thread over 1 of 2",
               estimate=estimate(ratios(linked, ours)), at_least=_LINKED),
    ]  # fmt: skip
    for server in names:
        samples = heard[server.name]
        figures.append(
            Figure(title=f"{title}, {server.name}", unit="tokens/s",
                   estimate=estimate([_speed(sample) for sample in samples]))
        )  # fmt: skip
        firsts = [one.first for sample in samples for one in sample]
        gaps = [gap for sample in samples for one in sample for gap in one.between]
        for kind, values in (("first token", firsts), ("between tokens", gaps)):
            for percentile in (50, 99):
                value = float(np.percentile(values, percentile))
                figures.append(
                    Figure(title=f"{title}, {server.name}, {kind}, {percentile}th percentile",
                           unit="s", estimate=estimate([value]))
                )  # fmt: skip
    return figures


def _long_prompt(pair: Sequence[Server], rounds: int, vocab_size: int, quick: bool) -> list[Figure]:
    """The gaps of streams while a long prompt is read."""
    prompt = 400 if quick else _LONG_PROMPT
    asks = [Ask(prompt_tokens=_PROMPT, new_tokens=200, seed=seed) for seed in range(_LONG_WIDTH)]
    asks.append(Ask(prompt_tokens=prompt, new_tokens=4, seed=99, after=3.0))
    heard = _rounds(pair, asks, rounds, vocab_size, "while a long prompt arrives")
    figures = []
    percentiles: list[list[float]] = []
    for server in pair:
        own = [_gap(sample) for sample in heard[server.name]]
        percentiles.append(own)
        figures.append(
            Figure(title=f"{prompt} tokens arrive, {server.name}, between tokens, 99th percentile",
                   unit="s", estimate=estimate(own))
        )  # fmt: skip
        firsts = [sample[-1].first for sample in heard[server.name]]
        figures.append(
            Figure(title=f"{prompt} tokens arrive, {server.name}, their first token", unit="s",
                   estimate=estimate(firsts))
        )  # fmt: skip
    figures.insert(
        0,
        Figure(title="long prompt arrives: 99th percentile between tokens over llama-server",
               estimate=estimate(ratios(*percentiles)), at_most=1.0),
    )  # fmt: skip
    return figures


def _gap(sample: Sequence[Heard]) -> float:
    """The 99th percentile of the gaps of those who listened while the last prompt was read."""
    begin, end = sample[-1].asked, sample[-1].came[0]
    gaps = [
        later - earlier
        for one in sample[:-1]
        for earlier, later in zip(one.came, one.came[1:], strict=False)
        if later >= begin and earlier <= end
    ]
    return float(np.percentile(gaps, 99))


def _plain(samples: Sequence[Sequence[Heard]]) -> list[list[dict[str, object]]]:
    return [[{"first": one.first, "tokens": one.tokens, "between": one.between} for one in sample]
            for sample in samples]  # fmt: skip
