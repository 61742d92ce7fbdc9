"""The native exchange: the same bytes over every link, and numbers out of range fail every node."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from bandweave._native import Exchange
from bandweave.checkpoints.source import TensorSource
from bandweave.executors.executor import Step
from bandweave.mesh.sealing import TAG_BYTES
from tests.helpers.linked_nodes import HEADER, LINKS, LinkedNodes, Relay, link_nodes
from tests.helpers.random_model import (
    F32,
    ODD_SPECS,
    MemorySource,
    random_source,
    random_tensors,
    tiny_spec,
)
from tests.helpers.reference_nodes import Book, ReferenceNodes

SPEC = ODD_SPECS["ten_heads_of_8"]
SOURCE = random_source(SPEC, 8)
BLOCK = 64  # grid values that share a width on the wire
TOKENS = [3, 1, 4, 1, 5]


def one_step(tokens: list[int] = TOKENS) -> Step:
    return Book(num_sequences=1, pages_each=1).step([(0, tokens)])


def linked(count: int, source: TensorSource = SOURCE, **options: Any) -> LinkedNodes:
    return link_nodes(options.pop("spec", SPEC), source, count, **options)


def scaled(changes: Mapping[str, np.floating | F32]) -> MemorySource:
    """The source with some tensors multiplied."""
    tensors = random_tensors(SPEC, 8)
    return MemorySource(
        tensors={
            name: (values * changes[name] if name in changes else values).astype(np.float32)
            for name, values in tensors.items()
        }
    )


# --- the same bytes ---


def output_rows(rows: range, factor: float) -> F32:
    factors = np.ones((SPEC.hidden_size, 1), np.float32)
    factors[rows.start : rows.stop] = factor
    return factors


WIDE = {
    "none": scaled({}),
    "a row": scaled({"layers.1.down_proj": output_rows(range(70, 71), 1e6)}),
    "most": scaled({f"layers.{i}.{name}": np.float32(1e5) for i in range(3)
                    for name in ("o_proj", "down_proj")}),
}  # fmt: skip


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("wide", WIDE)
def test_wide_sums_cross_unchanged(wide: str, link: str) -> None:
    alone = linked(1, WIDE[wide]).run(one_step())
    nodes = linked(3, WIDE[wide], link=link)
    logits: list[F32] = []
    threads = [threading.Thread(target=nodes.node(node).follow) for node in (1, 2)]
    for thread in threads:
        thread.start()
    logits.append(nodes.run(one_step()))
    for thread in threads:
        thread.join(timeout=30)
    assert logits[0].tobytes() == alone.tobytes()
    # All six sums of 5 rows of 80 values in blocks of 64 and 16, to two nodes, as int32 or int64.
    bill = nodes.node(1).bill(decode=True)
    sent = bill["activation_bytes"]
    values = len(TOKENS) * SPEC.hidden_size
    tags = -(-len(TOKENS) * -(-SPEC.hidden_size // BLOCK) // 8) * 8
    sealing = 4 + 2 * TAG_BYTES if link.startswith("sealed") else 0  # a record for each message
    extra = sent - 2 * 6 * (HEADER.size + tags + values * 4 + sealing)
    assert extra % (2 * 16 * 4) == 0
    most = 2 * 6 * values * 4
    assert {"none": extra == 0, "a row": 0 < extra <= most / 6, "most": extra == most}[wide]


@pytest.mark.parametrize("overlap_rows", [1, 100])
@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize("wide", WIDE)
def test_wide_sums_cross_unchanged_in_slices(wide: str, count: int, overlap_rows: int) -> None:
    alone = linked(1, WIDE[wide]).run(one_step())
    nodes = linked(count, WIDE[wide], hop_bytes=0, overlap_rows=overlap_rows)
    threads = [threading.Thread(target=nodes.node(node).follow) for node in range(1, count)]
    for thread in threads:
        thread.start()
    assert nodes.run(one_step()).tobytes() == alone.tobytes()
    for thread in threads:
        thread.join(timeout=30)


def test_wide_sums_are_those_of_the_reference() -> None:
    with ReferenceNodes(
        SPEC, WIDE["most"], weight_format="f32", kv_dtype="f32", num_pages=1
    ) as reference:
        expected = reference.run(one_step())
    assert linked(1, WIDE["most"]).run(one_step()).tobytes() == expected.tobytes()


@pytest.mark.parametrize("spin", [False, True])
@pytest.mark.parametrize("link", LINKS)
def test_frames_larger_than_any_buffer_get_through(link: str, spin: bool) -> None:
    spec = tiny_spec(hidden_size=4000, intermediate_size=64, num_layers=1, vocab_size=64)
    source = random_source(spec, 1)
    step = one_step([i % 64 for i in range(60)])  # sums of 960 KB
    alone = linked(1, source, spec=spec, weight_format="q4").run(step)
    nodes = linked(2, source, spec=spec, link=link, spin=spin, weight_format="q4")
    thread = threading.Thread(target=nodes.node(1).follow)
    thread.start()
    assert nodes.run(step).tobytes() == alone.tobytes()
    thread.join(timeout=30)


@pytest.mark.parametrize("stages", [1, 3])
def test_bytes_by_kind_are_what_the_sockets_carried(stages: int) -> None:
    """Every link goes through a relay that counts."""
    spec = ODD_SPECS["qk_norm_window"]
    source = random_source(spec, 8)
    relays: list[Relay] = []

    def link(a: Exchange, b: Exchange, low: int, high: int) -> None:
        relays.append(Relay(a, b, low, high))

    nodes = link_nodes(spec, source, 3, link=link, stages=stages)
    threads = [
        threading.Thread(target=lambda node=node: [nodes.node(node).follow() for _ in range(3)])
        for node in (1, 2)
    ]
    for thread in threads:
        thread.start()
    book = Book(num_sequences=1, pages_each=1)
    nodes.run(book.step([(0, TOKENS)]))
    nodes.node(0).best(step := book.step([(0, [7])]), nodes.embeddings[step.tokens])
    nodes.run(book.step([(0, [1, 2])], all_logits=False))
    for thread in threads:
        thread.join(timeout=30)
    kinds = ("activation_bytes", "logit_bytes", "control_bytes", "weight_wire_bytes",
             "kv_wire_bytes")  # fmt: skip
    for node in range(3):
        bills = [nodes.node(node).bill(decode=decode) for decode in (False, True)]
        counted = sum(int(bill[kind]) for bill in bills for kind in kinds)
        carried = sum(relay.carried.get(node, 0) for relay in relays)
        assert counted == carried > 0, node
    for relay in relays:
        relay.close()


# --- numbers out of range ---


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("name", "factor", "message"),
    [
        ("layers.1.down_proj", 1e9, "layers.1.down_proj: a sum is not finite or too large for "),
        ("layers.2.o_proj", 1e12, "layers.2.o_proj: a sum is not finite or too large for the gri"),
        ("layers.1.up_proj", 1e38, "layers.1.down_proj: a"),
        ("layers.1.input_norm", 1e38, "layers.1.attention.kv: a key or value is not finite in th"),
    ],
)
def test_numbers_out_of_range_fail_the_step_on_every_node(
    name: str, factor: float, message: str, count: int, link: str, scattered: bool
) -> None:
    scale = {name: np.float32(factor)}
    beyond = {"layers.1.up_proj": "layers.1.gate_proj", "layers.1.input_norm": "layers.1.v_proj"}
    if name in beyond:  # their product leaves float32
        scale[beyond[name]] = np.float32(1e3 if "norm" in name else factor)
    way = {"hop_bytes": 0, "overlap_rows": 2} if scattered else {}
    nodes = linked(count, scaled(scale), link=link, **way)
    errors = nodes.run_all(one_step())
    assert sorted(errors) == list(range(count)), errors
    for error in errors.values():
        assert error.startswith(message), errors


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("weight_format", ["f32", "q4"])
def test_embeddings_that_are_not_finite_name_the_first_layer(
    weight_format: str, value: float
) -> None:
    nodes = linked(3, weight_format=weight_format)
    nodes.embeddings = nodes.embeddings.copy()
    nodes.embeddings[TOKENS[0], 7] = value
    errors = nodes.run_all(one_step())
    assert sorted(errors) == [0, 1, 2]
    assert all(error.startswith("layers.0.") for error in errors.values()), errors


# --- followers ---


@pytest.mark.parametrize("link", LINKS)
def test_a_follower_is_woken_by_its_descriptor_and_goes_on(link: str) -> None:
    nodes = linked(2, link=link)
    reading, writing = os.pipe()
    timer = threading.Timer(0.2, lambda: os.write(writing, b"x"))
    timer.start()
    start = time.monotonic()
    assert nodes.node(1).follow(reading) == "woken"
    assert 0.1 < time.monotonic() - start < 5.0
    assert nodes.node(1).follow(reading) == "woken"
    os.read(reading, 1)
    assert nodes.run_all(one_step(), once=True) == {}
    timer.join()
    exchange = nodes.exchanges[0]
    assert exchange is not None
    exchange.leave()
    assert nodes.node(1).follow(reading) == "left"
    os.close(reading)
    os.close(writing)


def test_reasons_to_give_up_reach_every_peer() -> None:
    nodes = linked(3)
    exchange = nodes.exchanges[2]
    assert exchange is not None
    exchange.abort("node 2 has had enough")
    errors = nodes.run_all(one_step(), quiet=[2])
    assert errors == {0: "node 2 has had enough", 1: "node 2 has had enough"}
