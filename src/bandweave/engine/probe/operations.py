"""What the operations without weights cost: attention, norms, rope and the like, and being an
operation at all. And what node 0 does between the steps.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence

import numpy as np

from bandweave import _native
from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.checkpoints.source import widen
from bandweave.engine.executor import PAGE_SIZE
from bandweave.engine.generation import Generator
from bandweave.engine.loading import Weights
from bandweave.engine.native import NativeExecutor
from bandweave.engine.probe import programs
from bandweave.engine.probe.stopwatch import Setting, Timed, fill_cache, take_turns
from bandweave.engine.request import Request
from bandweave.engine.sampling import SamplingParams, sample
from bandweave.mesh.channel import Channel
from bandweave.planning.profile import (
    AttentionRate,
    ElementRate,
    Overhead,
    StepCost,
    median_and_spread,
)
from bandweave.planning.split import Range

_TINY_OPS, _TINY_WIDTH = 256, 16
_WIDTH, _ROWS, _OPS = 2048, 32, 32
_DIM = 64
_KV_HEADS, _CONTEXT = 4, 2048
_PROMPT_ROWS, _PROMPT_LAYERS = 32, 2
_STEP_TOKENS, _LOGITS = 48, 32768


def probe_overheads(threads: Sequence[int], rounds: int, setting: Setting) -> list[Overhead]:
    """Operations on 16 numbers: what is left is the way there and the barrier."""
    timed = {
        number: Timed(
            program=programs.norms(_TINY_WIDTH, _TINY_OPS),
            options=setting.options(number),
            item="other",
        )
        for number in threads
    }
    found = []
    for number, values in take_turns(timed, rounds).items():
        seconds, spread = median_and_spread([value / _TINY_OPS for value in values])
        found.append(Overhead(threads=number, seconds_per_op=seconds, spread=spread))
    return found


def probe_elements(
    rounds: int, setting: Setting, op_seconds: Callable[[int], float]
) -> list[ElementRate]:
    """Seconds for each element, by one thread."""
    heads = _WIDTH // _DIM
    makers = {
        "rms_norm": (programs.norms(_WIDTH, _OPS), "other"),
        "silu_mul": (programs.gates(_WIDTH, _OPS), "other"),
        "rope": (programs.ropes(heads, _DIM, _OPS), "other"),
        "kv_append": (programs.appends(heads, _DIM, _OPS), "attention"),
        "all_reduce_add": (programs.reduces(_WIDTH, _OPS), "other"),
    }
    timed = {
        kind: Timed(
            program=program,
            options=setting.options(1, rows=_ROWS),
            item=item,
            rows=_ROWS,
            position=_ROWS - 1,
        )
        for kind, (program, item) in makers.items()
    }
    found = []
    for kind, values in take_turns(timed, rounds).items():
        seconds, spread = median_and_spread([value / _OPS for value in values])
        each = max(0.0, seconds - op_seconds(1)) / (_ROWS * _WIDTH)
        found.append(ElementRate(kind=kind, seconds=each, spread=spread))
    return found


def probe_attention(
    kv_format: str,
    *,
    threads: Sequence[int],
    together: Sequence[int],
    cache_bytes: int,
    rounds: int,
    setting: Setting,
    op_seconds: Callable[[int], float],
) -> list[AttentionRate]:
    """One row far into a text, whose keys come from memory; and rows of a prompt, which share
    theirs. ``together``: how many query heads read one KV head."""
    pages = _CONTEXT // PAGE_SIZE
    half = kv_format == "f16"
    layer_bytes = pages * _KV_HEADS * _native.kv_head_bytes(_DIM, half)
    layers = max(_PROMPT_LAYERS, -(-cache_bytes // layer_bytes))
    found: list[AttentionRate] = []
    for streamed in (True, False):
        depth = layers if streamed else _PROMPT_LAYERS
        rows = 1 if streamed else _PROMPT_ROWS
        timed: dict[tuple[int, int], Timed] = {}
        for group in together:
            for number in threads:
                timed[group, number] = one = Timed(
                    program=programs.attention(group * _KV_HEADS, _KV_HEADS, _DIM, depth),
                    options=setting.options(
                        number, rows=4 * PAGE_SIZE, pages=pages, kv_format=kv_format
                    ),
                    item="attention",
                    rows=rows,
                    position=_CONTEXT - 1,
                )
                fill_cache(one.executor, pages, 4 * PAGE_SIZE, 1)
        for (group, number), values in take_turns(timed, rounds).items():
            seconds, spread = median_and_spread([value / depth for value in values])
            heads = group * _KV_HEADS
            elements = rows * (_CONTEXT - rows / 2) * heads * _DIM / min(number, rows * heads)
            found.append(
                AttentionRate(
                    kv_format=kv_format,
                    together=group,
                    streamed=streamed,
                    threads=number,
                    seconds=max(0.0, seconds - 2 * op_seconds(number)) / elements,
                    spread=spread,
                )
            )
    return found


def probe_step(rounds: int, setting: Setting) -> StepCost:
    """Node 0's work around a step: a model that is next to nothing, with all that goes on around
    it: rows and tables, the embedding, a message for each token."""
    hidden = 64
    program = programs.tiny_model(hidden, 256)
    arena = _native.Arena(1 << 20)
    matrix = _native.Matrix(arena, "f32", 256, hidden, hidden)
    matrix.pack(0, np.random.default_rng(0).standard_normal((256, hidden), np.float32))
    weights = Weights(arena=arena, matrices={"lm_head": matrix}, vectors={})
    options = setting.options(1, rows=64, pages=8)
    executor = NativeExecutor(program, weights, options)
    generator = Generator(
        executor,
        lambda tokens: np.zeros((len(tokens), hidden), np.float32),
        num_pages=8,
        context=8 * PAGE_SIZE,
        max_rows=64,
        vocab_size=256,
        exp=lambda values: _native.exp(values, options.isa).reshape(-1),
    )
    params = SamplingParams(temperature=0, max_tokens=_STEP_TOKENS)
    request = Request(tokens=tuple(range(32)), params=params)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(ours, "the controller")

        def on_token(index: int, token: int) -> None:
            channel.send({"type": "token", "number": 1, "index": index, "token": token})

        def step() -> float:
            before = executor.bill(decode=True)["wall"]
            timing = generator.run([request], on_token=on_token, reuse=False)[0].timing
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
            tokens = generator.integers(folder.spec.vocab_size, size=64)
            start = time.perf_counter()
            rows = [
                folder.read("embed_tokens", Range(start=int(token), stop=int(token) + 1))
                for token in tokens
            ]
            widen(np.concatenate(rows))
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
