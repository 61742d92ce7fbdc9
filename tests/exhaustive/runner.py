"""Runs cases on native nodes that are threads of this process, and keeps what neighbours share.

Knows how a case becomes nodes and requests; compares nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from bandweave import _native
from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import DEMO, resolve_model
from bandweave.checkpoints.source import TensorSource
from bandweave.executors.executor import PAGE_SIZE, StepError
from bandweave.generation.generator import Generator
from bandweave.generation.request import Request, Result
from bandweave.generation.sampling import SamplingParams
from bandweave.generation.speculation.controller import Speculation
from bandweave.models.spec import ModelSpec
from tests.exhaustive.cases import (
    ALONE,
    DIRECT,
    DRAFTS,
    FLUSHED,
    GGUF,
    KEPT,
    PLAIN,
    SPLITS,
    WHOLE,
    Case,
    Value,
    spec_of,
)
from tests.helpers.gguf_mixed import write_mixed
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.random_model import random_source
from tests.helpers.scripted_drafter import ScriptedDrafter

SEED = 20
CONTEXT = 2 * PAGE_SIZE
NUM_PAGES = 8
NUM_STATES = 6
MAX_ROWS = 128  # all prompts of a batch in one piece

_GREEDY = SamplingParams(temperature=0.0, max_tokens=6)
_SAMPLED = SamplingParams(
    temperature=0.9, top_k=50, top_p=0.95, min_p=0.01, repetition_penalty=1.1,
    frequency_penalty=0.1, presence_penalty=0.1, seed=11, max_tokens=6,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Tokens and the digest of their logits, of the greedy and of the sampled request."""

    tokens: tuple[tuple[int, ...], ...]
    digests: tuple[str, ...]


def requests_for(vocab_size: int) -> list[Request]:
    """The two requests that are compared, then the others of a batch.

    The first prompt passes a page of 64 positions.
    """
    words = np.random.PCG64(SEED).random_raw(128) >> np.uint64(33)
    tokens = iter((words % np.uint64(vocab_size)).tolist())

    def request(length: int, params: SamplingParams) -> Request:
        return Request(tokens=tuple(next(tokens) for _ in range(length)), params=params)

    return [
        request(70, _GREEDY),
        request(13, _SAMPLED),
        request(9, replace(_GREEDY, max_tokens=4)),
        request(17, replace(_SAMPLED, seed=12, max_tokens=9)),
    ]


class Runner:
    """Runs one case after the other; a context manager. Fastest with a mesh's cases in a row."""

    def __init__(self) -> None:
        self._models: dict[str, tuple[ModelSpec, TensorSource]] = {}
        self._nodes: NativeNodes | None = None
        self._generator: Generator | None = None
        self._drafter: ScriptedDrafter | None = None
        self._mesh: tuple[Value, ...] = ()
        self._scripts: dict[tuple[str, ...], list[tuple[int, ...]]] = {}  # every request's tokens

    def answer(self, case: Case) -> Answer:
        """The answer of one case. ``StepError`` where its nodes fail."""
        script = self._script(case) if case.speculation == DRAFTS else None
        self._open(case)
        requests = requests_for(self._model(case.model)[0].vocab_size)
        chunk = None if case.chunk == WHOLE else case.chunk
        try:
            if case.company == ALONE:
                results = [
                    self._run([requests[i]], chunk, script and script[i : i + 1])[0] for i in (0, 1)
                ]
            else:
                results = self._run(requests, chunk, script)[:2]
        except StepError:
            self.close()
            raise
        return Answer(
            tokens=tuple(result.tokens for result in results),
            digests=tuple(result.logits_digest for result in results),
        )

    def baseline(self, case: Case) -> Answer:
        """The answer that the case must give: one node, one thread, alone, in one piece."""
        isa = _native.isa_variants()[0]
        simple = {"split": "1", "isa": isa, "threads": 1, "company": ALONE, "chunk": WHOLE,
                  "sums": DIRECT, "subnormals": KEPT, "speculation": PLAIN}  # fmt: skip
        return self.answer(replace(case, **simple))  # type: ignore[arg-type]

    def best_tokens(self, case: Case) -> tuple[int, ...]:
        """The tokens of the greedy request, from nodes that send candidates instead of logits."""
        script = self._script(case)[:1] if case.speculation == DRAFTS else None
        self._open(case)
        request = requests_for(self._model(case.model)[0].vocab_size)[0]
        return self._run([request], None, script, digest=False)[0].tokens

    def close(self) -> None:
        nodes, self._nodes, self._generator, self._mesh = self._nodes, None, None, ()
        if nodes is not None:
            nodes.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(
        self,
        requests: Sequence[Request],
        chunk: int | None,
        script: Sequence[Sequence[int]] | None = None,
        *,
        digest: bool = True,
    ) -> list[Result]:
        """``script``: what the requests will say, for whoever drafts; None for plain decoding."""
        assert self._generator is not None and self._drafter is not None
        self._drafter.answers = dict(enumerate(script or ()))
        return self._generator.run(requests, chunk=chunk, digest=digest, reuse=False)

    def _script(self, case: Case) -> list[tuple[int, ...]]:
        if case.group not in self._scripts:
            self.baseline(case)
            requests = requests_for(self._model(case.model)[0].vocab_size)
            results = [self._run([one], None)[0] for one in requests]
            self._scripts[case.group] = [result.tokens for result in results]
        return self._scripts[case.group]

    def _model(self, name: str) -> tuple[ModelSpec, TensorSource]:
        if name not in self._models:
            if name == DEMO:
                folder = Folder.open(resolve_model(DEMO))
                self._models[name] = folder.spec, folder
            elif name == GGUF:
                with tempfile.TemporaryDirectory() as where:  # an open file may have no name
                    folder = Folder.open(write_mixed(Path(where) / "m.gguf"))
                self._models[name] = folder.spec, folder
            else:
                spec = spec_of(name)
                self._models[name] = spec, random_source(spec, SEED)
        return self._models[name]

    def _open(self, case: Case) -> None:
        """Puts the case's mesh in the place of the one before, if it is another."""
        if case.mesh == self._mesh:
            return
        self.close()
        spec, source = self._model(case.model)
        shares, stages = SPLITS[case.split]
        sums: dict[str, Any] = {} if case.sums == DIRECT else {"hop_bytes": 0, "overlap_rows": 6}
        nodes = NativeNodes(
            spec,
            source,
            weight_format=case.weights,
            kv_format=case.kv,
            num_pages=NUM_PAGES,
            num_states=NUM_STATES,
            shares=shares,
            stages=stages,
            threads=case.threads,
            isa=case.isa,
            flush_to_zero=case.subnormals == FLUSHED,
            fetch_ahead=4096 * (case.threads - 1),  # with two threads weights are fetched by hand
            **sums,
        )
        self._nodes, self._mesh = nodes, case.mesh
        self._drafter = ScriptedDrafter({}, vocab_size=spec.vocab_size)
        self._generator = Generator(
            nodes.nodes[0],
            lambda tokens: nodes.embeddings[tokens],
            num_pages=NUM_PAGES,
            num_states=NUM_STATES if spec.has_state else 0,
            context=CONTEXT,
            max_rows=MAX_ROWS,
            vocab_size=spec.vocab_size,
            exp=lambda values: _native.exp(values, case.isa).reshape(-1),
            speculation=Speculation(self._drafter, draft_tokens=4, adaptive=False),
            pipeline=nodes.nodes[0].pipeline(stages),
        )
