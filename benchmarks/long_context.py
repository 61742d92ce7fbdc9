"""Latent attention at long contexts: whether two nodes halve what it takes.

Reading 64 k tokens takes the square of their number, so they are taken as read: the pages hold the
keys that many short prompts left there. Nodes are threads of this process, each with one processor.
Knows the engine's page pool; knows no peers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction

from bandweave.checkpoints.folder import Folder
from bandweave.engine.bill import make_bill
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.generation.pages import Cached, PagePool
from bandweave.generation.request import Request
from bandweave.generation.sampling import SamplingParams
from bandweave.nodes.thread_launcher import ThreadLauncher
from bandweave.run_options import RunOptions
from benchmarks.models import Model, Scale, Store
from benchmarks.peers.protocol import Work
from benchmarks.result import Figure, Result
from benchmarks.rounds import order, say
from benchmarks.statistics import estimate, ratios

_FILLING = 48  # tokens of a short prompt: attention to them takes little
_NEW_TOKENS = 6
_CONTEXTS, _QUICK_CONTEXTS = (16 << 10, 64 << 10), (1 << 10,)
_SHAPE = "deepseek-v3"  # its 128 heads, few and small layers besides
_CHANGES = {"layers": 2, "experts": 8, "hidden": 1024, "intermediate": 2048,
            "expert_intermediate": 512, "vocab": 4096}  # fmt: skip
_NODES = (1, 2)
_AT_LEAST = 1.7


def run(store: Store, scale: Scale) -> Result:
    quick = scale.prefill_tokens < 512
    model = Model(shape=_SHAPE, changes=_CHANGES)
    figures: list[Figure] = []
    rounds: list[dict[str, object]] = []
    for context in _QUICK_CONTEXTS if quick else _CONTEXTS:
        speeds: dict[int, list[float]] = {nodes: [] for nodes in _NODES}
        shares: dict[int, list[float]] = {nodes: [] for nodes in _NODES}
        with ExitStack() as stack:
            engines = {nodes: stack.enter_context(_loaded(store, model, nodes, context))
                       for nodes in _NODES}  # fmt: skip
            for number in range(max(2, scale.rounds // 3)):
                say(f"long context {context}: round {number + 1}")
                for index in order(len(_NODES)):
                    nodes = _NODES[index]
                    speed, attention = _decode(engines[nodes], context)
                    speeds[nodes].append(speed)
                    shares[nodes].append(100 * attention)
        rounds.append({"context": context, "speeds": speeds, "attention": shares})
        figures.append(
            Figure(
                title=f"latent attention, {context} keys, 2 nodes over 1 node of 1 thread",
                estimate=estimate(ratios(speeds[2], speeds[1])),
                at_least=_AT_LEAST,
            )
        )
        figures += [
            Figure(title=f"{nodes} node{'s' * (nodes > 1)}, {context} keys",
                   estimate=estimate(speeds[nodes]), unit="tokens/s")
            for nodes in _NODES
        ]  # fmt: skip
        figures += [
            Figure(title=f"{nodes} node{'s' * (nodes > 1)}, {context} keys: share of attention",
                   estimate=estimate(shares[nodes]), unit="%")
            for nodes in _NODES
        ]  # fmt: skip
    return Result(
        experiment="long-context",
        title=f"Long contexts, latent attention of {_SHAPE}, 1 thread a node",
        figures=figures,
        notes=(
            "The first tokens are taken as read: their pages hold keys that short prompts left.",
        ),
        rounds=rounds,
    )


@contextmanager
def _loaded(store: Store, model: Model, nodes: int, context: int) -> Iterator[Engine]:
    options = EngineOptions(
        shares=(Fraction(1),) * nodes,
        threads=1,
        run=RunOptions(weight_format="q4", context=context + _NEW_TOKENS, streams=1),
    )
    with (
        Folder.open(store.folder(model)) as folder,
        Engine.start(folder, options, ThreadLauncher(1)) as engine,
    ):
        prompts = Work(prompt_tokens=_FILLING, new_tokens=1, streams=context // _FILLING)
        for prompt in prompts.prompts(_CHANGES["vocab"]):
            engine.generate([_request(prompt, 1)], reuse=False)
        yield engine


def _decode(engine: Engine, context: int) -> tuple[float, float]:
    """Tokens a second, and attention's part of node 0's time."""
    prompt = Work(prompt_tokens=context, new_tokens=_NEW_TOKENS).prompts(_CHANGES["vocab"])[0]
    before = engine.statistics()
    with _taken_as_read(context - 1):
        result = engine.generate([_request(prompt, _NEW_TOKENS)])[0]
    bill = make_bill(engine.split, before, engine.statistics(), [result.timing])
    node = bill.to_json()["nodes"][0]
    return result.timing.decode_tokens_per_s, node["attention"] / node["wall"]


def _request(prompt: Sequence[int], new_tokens: int) -> Request:
    params = SamplingParams(temperature=0, max_tokens=new_tokens)
    return Request(tokens=tuple(prompt), params=params, choice=0)


@contextmanager
def _taken_as_read(tokens: int) -> Iterator[None]:
    """Pools of this process believe that they hold the first ``tokens`` of every prompt."""
    claim = PagePool.claim

    def believe(self: PagePool, prompt: Sequence[int], *, reuse: bool = True) -> Cached:
        cached = Cached(tokens=list(prompt[:tokens]))
        self.grow(cached, tokens)
        return cached

    PagePool.claim = believe  # type: ignore[method-assign]
    try:
        yield
    finally:
        PagePool.claim = claim  # type: ignore[method-assign]
