"""Combination: a model, a format, a split, a link and a prompt, to run and to predict.

Knows which are measured; measures nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from bandweave.checkpoints.folder import Folder
from bandweave.host.machine import usable_cpus
from bandweave.models.registry import build_graph
from bandweave.planning.profile.emulation import emulated_link
from bandweave.planning.profile.engine_node import EngineNode
from bandweave.planning.profile.link_profile import LinkProfile
from bandweave.planning.profile.profile import HERE, HERE_SHARED, HERE_TCP, Profile
from bandweave.planning.simulation.server import ProbedServer
from bandweave.programs.split import make_split
from benchmarks import contestant
from benchmarks.contestant import Contestant
from benchmarks.models import Model, Scale, Store, pairs_of
from benchmarks.peers.protocol import Work

LINKS = ("ethernet-10g", "thunderbolt-4-tcp")  # emulated
LOCAL = ""
SHORT, _LONG = 128, 4096  # tokens of a prompt


@dataclass(frozen=True, kw_only=True)
class Combination:
    """What runs: ``link`` is the name of an emulated link, empty for nodes that share memory; there
    are as many nodes as ``shares``; a node alone has all threads unless ``lone``: then one."""

    model: Model
    format: str = "q4"
    shares: tuple[int, ...] = (1,)
    stages: int = 1
    link: str = LOCAL
    prompt_tokens: int = SHORT
    lone: bool = False

    @property
    def name(self) -> str:
        words = [self.model.shape, self.format]
        if len(self.shares) == 1:
            words.append("1 thread" if self.lone else "1 node")
        else:
            kind = "stages" if self.stages > 1 else "tensor"
            words.append(f"{':'.join(map(str, self.shares))} {kind}")
        if self.link:
            words.append(self.link)
        return f"{' '.join(words)}, {self.prompt_tokens}"

    @property
    def threads(self) -> int:
        """Of each node."""
        if self.link or self.lone:
            return 1
        return max(1, len(usable_cpus()) // len(self.shares))

    def same_task(self, other: Combination) -> bool:
        """Whether a planner chooses between the two: only the split differs."""
        alike = replace(other, shares=self.shares, stages=self.stages, lone=self.lone)
        linked = self.link == other.link or LOCAL in (self.link, other.link)
        return linked and replace(alike, link=self.link) == self


def combinations(scale: Scale) -> list[Combination]:
    """Those of an experiment: three sizes, two formats, all kinds of splits, links, contexts. Those
    that a planner chooses between run one after the other, while the machine is as it was."""
    small, medium, large = three_sizes(scale)
    long = next((tokens for tokens in scale.contexts if tokens >= _LONG), SHORT)
    found = [
        *(Combination(model=small, shares=shares) for shares in ((1,), (1, 1))),
        *(Combination(model=medium, shares=shares) for shares in ((1,), (1, 1))),
        *(Combination(model=large, shares=shares) for shares in ((1,), (1, 1), (3, 1))),
        Combination(model=large, shares=(1, 1), stages=2),
        *(Combination(model=medium, format="q8", shares=shares) for shares in ((1,), (1, 1))),
        Combination(model=large, format="q8", shares=(3, 1), stages=2),
        *(Combination(model=large, shares=s, prompt_tokens=long) for s in ((1,), (1, 1))),
        Combination(model=medium, shares=(3, 1), prompt_tokens=long),
        Combination(model=large, lone=True),
    ]
    for link in LINKS:
        found += [
            Combination(model=large, shares=(1, 1), link=link),
            Combination(model=medium, shares=(1, 1), link=link),
            Combination(model=large, shares=(1, 1), stages=2, link=link),
        ]
    return list({one.name: one for one in found}.values())  # small ones may be alike


def mixture_combinations(scale: Scale) -> list[Combination]:
    """Mixtures of experts: on one node and on two, alone and over a link."""
    small, large = (pair.mixture for pair in pairs_of(scale)[:2])
    return [
        Combination(model=small),
        Combination(model=small, lone=True),
        Combination(model=small, shares=(1, 1)),
        Combination(model=small, shares=(1, 1), link=LINKS[0]),
        Combination(model=large),
        Combination(model=large, shares=(3, 1)),
    ]


def three_sizes(scale: Scale) -> tuple[Model, Model, Model]:
    """Dense models, from small to large."""
    sizes = list(scale.sizes)
    if len(sizes) < 3:  # quick
        return sizes[0], sizes[0], sizes[-1]
    return (
        Model(shape="smollm2-135m"),
        Model(shape="qwen3-0.6b", changes={"context": 8192}),
        Model(shape="tinyllama-1.1b", changes={"context": 8192}),
    )


def runner_of(store: Store, one: Combination, work: Work, *, streams: int = 1) -> Contestant:
    """What runs a combination, with places for ``streams`` answers."""
    return contestant.bandweave(
        store.folder(one.model), context=work.context, nodes=len(one.shares),
        threads=one.threads, format=one.format, streams=streams, shares=one.shares,
        stages=one.stages, link=one.link, name=one.name,
    )  # fmt: skip


def server_of(store: Store, one: Combination, profile: Profile) -> ProbedServer:
    """A combination by what was probed."""
    with Folder.open(store.folder(one.model)) as folder:
        graph = build_graph(folder.spec)
    node = EngineNode(machine=profile.machines[HERE], threads=one.threads, host=HERE)
    link = _link_profile(profile, one.link)
    return ProbedServer(
        graph=graph,
        split=make_split(graph.spec, tuple(map(Fraction, one.shares)), stages=one.stages),
        nodes=[node] * len(one.shares),
        links=lambda a, b: link,
        weight_format=one.format,
    )


def _link_profile(profile: Profile, name: str) -> LinkProfile:
    """What joins nodes of this machine: an emulated link by name, or shared memory."""
    if name == LOCAL:
        return profile.links[HERE_SHARED]
    return emulated_link(name).behind(profile.links[HERE_TCP])
