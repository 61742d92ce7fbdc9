"""One request to the demo model on threads of this process, and what its nodes counted of it."""

from __future__ import annotations

from dataclasses import dataclass

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.engine.bill import Bill, make_bill
from bandweave.engine.engine import Engine, NodeStatistics
from bandweave.engine.options import EngineOptions
from bandweave.generation.request import Request
from bandweave.generation.sampling import SamplingParams
from bandweave.models.spec import ModelSpec
from bandweave.nodes.thread_launcher import ThreadLauncher
from bandweave.programs.split import Split


@dataclass(frozen=True, kw_only=True)
class CountedRun:
    """The nodes' counters before and after, and the bill that is made of them."""

    spec: ModelSpec
    split: Split
    before: list[NodeStatistics]
    after: list[NodeStatistics]
    bill: Bill


def counted_run(options: EngineOptions, *, prompt: int, new: int) -> CountedRun:
    """Greedily answers a prompt of so many tokens with so many new ones."""
    with (
        Folder.open(demo_folder()) as folder,
        Engine.start(folder, options, ThreadLauncher()) as engine,
    ):
        params = SamplingParams(temperature=0, max_tokens=new)
        request = Request(tokens=tuple(range(100, 100 + prompt)), params=params)
        before = engine.statistics()
        results = engine.generate([request], reuse=False)
        after = engine.statistics()
        return CountedRun(
            spec=folder.spec,
            split=engine.split,
            before=before,
            after=after,
            bill=make_bill(engine.split, before, after, [results[0].timing]),
        )
