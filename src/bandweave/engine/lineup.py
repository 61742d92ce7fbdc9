"""Lineup: the nodes that hold a model at present, and how it is divided among them. Plain data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from bandweave.engine.content_check import Agreement
from bandweave.engine.loading_nodes import NodeInfo
from bandweave.engine.options import EngineOptions
from bandweave.engine.start_times import StartTimes
from bandweave.models.spec import ModelSpec
from bandweave.programs.split import Split


@dataclass(frozen=True, kw_only=True)
class Lineup:
    """``options`` as the model runs now: the shares and hosts are those of its ``nodes``, of which
    there are none before they have loaded. ``context``: tokens that a prompt and its answer may
    have together; ``agreement`` of the nodes' copies of the model; ``start_times`` of the start, or
    of when the nodes last joined."""

    spec: ModelSpec
    context: int
    options: EngineOptions
    split: Split
    nodes: tuple[NodeInfo, ...] = ()
    agreement: Agreement = Agreement()
    start_times: StartTimes = StartTimes()


class HasLineup(ABC):
    """A model on its nodes, which may be others later."""

    @property
    @abstractmethod
    def lineup(self) -> Lineup:
        """As it is now: whoever wants several things that belong together asks once."""

    @property
    def spec(self) -> ModelSpec:
        return self.lineup.spec

    @property
    def context(self) -> int:
        return self.lineup.context

    @property
    def options(self) -> EngineOptions:
        return self.lineup.options

    @property
    def split(self) -> Split:
        return self.lineup.split

    @property
    def nodes(self) -> tuple[NodeInfo, ...]:
        return self.lineup.nodes
