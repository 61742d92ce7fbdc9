"""What node 0 does around the steps: rows and tables, embeddings, the choice, a message."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bandweave import _native
from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.executors.executor import PAGE_SIZE
from bandweave.executors.native import NativeExecutor
from bandweave.generation.generator import Generator
from bandweave.generation.request import Request
from bandweave.generation.sampling import SamplingParams, sample
from bandweave.mesh.channel import Channel
from bandweave.planning.profile.profile import StepCost, median_and_spread
from bandweave.probing import programs
from bandweave.probing.products import Streamed
from bandweave.probing.stopwatch import Setting, take_turns
from bandweave.routing.token_stream import TokenStream
from bandweave.weights.embedding import read_embeddings
from bandweave.weights.packed import Weights

_TOKENS, _LOGITS = 16, 32768
_HIDDEN, _VOCABULARY, _PAGES = 64, 256, 8


def probe_step(rounds: int, setting: Setting, streamed: Streamed) -> StepCost:
    """A model that is next to nothing but for reading the ``streamed`` weights, with all that goes
    on around its steps."""
    program = programs.amid_weights(programs.tiny_model(_HIDDEN, _VOCABULARY), streamed.weights)
    arena = _native.Arena(1 << 20)
    matrix = _native.Matrix(arena, "f32", _VOCABULARY, _HIDDEN, _HIDDEN)
    matrix.pack(0, np.random.default_rng(0).standard_normal((_VOCABULARY, _HIDDEN), np.float32))
    beside = streamed.beside(program)
    weights = Weights(
        arena=arena, matrices={**beside.matrices, "lm_head": matrix}, vectors=beside.vectors
    )
    options = setting.options(1, rows=64, pages=_PAGES)
    executor = NativeExecutor(program, weights, options)
    params = SamplingParams(temperature=0, max_tokens=_TOKENS)
    request = Request(tokens=tuple(range(32)), params=params)
    ours, theirs = socket.socketpair()
    with ours, theirs, Folder.open(demo_folder()) as folder:
        channel = Channel(ours, "the controller")

        def embed(tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
            return np.ascontiguousarray(read_embeddings(folder, tokens)[:, :_HIDDEN])

        generator = Generator(
            executor,
            embed,
            num_pages=_PAGES,
            context=_PAGES * PAGE_SIZE,
            max_rows=64,
            vocab_size=_VOCABULARY,
            exp=lambda values: _native.exp(values, options.isa).reshape(-1),
        )

        def step() -> float:
            stream = TokenStream(channel)
            before = executor.bill(decode=True)["wall"]
            timing = generator.run([request], on_tokens=stream.put, reuse=False)[0].timing
            theirs.recv(1 << 20)
            inside = executor.bill(decode=True)["wall"] - before
            return max(0.0, timing.decode - inside) / max(1, timing.decode_tokens)

        steps = take_turns({"step": step}, rounds)["step"]
    rows = take_turns({"row": _embedding_reader()}, rounds)["row"]
    logits = take_turns({"logit": _sampler(setting.isa)}, rounds)["logit"]
    return StepCost(
        seconds_per_step=median_and_spread(steps)[0],
        seconds_per_row=median_and_spread(rows)[0],
        seconds_per_logit=median_and_spread(logits)[0],
    )


def _embedding_reader() -> Callable[[], float]:
    generator = np.random.default_rng(0)

    def read() -> float:
        with Folder.open(demo_folder()) as folder:
            tokens = generator.integers(folder.spec.vocab_size, size=64, dtype=np.int32)
            start = time.perf_counter()
            read_embeddings(folder, tokens)
            return (time.perf_counter() - start) / len(tokens)

    return read


def _sampler(isa: str) -> Callable[[], float]:
    logits = np.random.default_rng(0).standard_normal(_LOGITS, np.float32)
    params = SamplingParams(temperature=1.0)

    def choose() -> float:
        start = time.perf_counter()
        sample(logits, params, (), [], 1, 0, lambda x: _native.exp(x, isa).reshape(-1))
        return (time.perf_counter() - start) / _LOGITS

    return choose
