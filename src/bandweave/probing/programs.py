"""Programs that hold one kind of operation many times over, to be timed. Pure.

The executor that runs models runs these too: threads, barriers, quantising and exchanges are those
of a real step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from bandweave.models.rope import RopeTable
from bandweave.programs.program import (
    Attribute,
    Buffer,
    CacheShape,
    Op,
    Program,
    Vector,
    View,
    Weight,
)

NORM_EPS = 1e-5


def _view(name: str, width: int) -> View:
    return View(buffer=name, offset=0, width=width)


def _program(
    ops: Sequence[Op],
    buffers: Sequence[Buffer],
    *,
    hidden: int = 1,
    weights: Sequence[Weight] = (),
    vectors: Sequence[Vector] = (),
    caches: tuple[CacheShape, ...] = (),
    frequencies: tuple[RopeTable, ...] = (),
    node: int = 0,
    num_nodes: int = 1,
    vocab_size: int = 1,
) -> Program:
    return Program(
        node=node,
        num_nodes=num_nodes,
        hidden_size=hidden,
        vocab_size=vocab_size,
        buffers={buffer.name: buffer for buffer in buffers},
        weights={weight.name: weight for weight in weights},
        vectors={vector.name: vector for vector in vectors},
        caches=caches,
        frequencies=frequencies,
        ops=tuple(ops),
    )


def _embed(width: int, group: tuple[int, ...] = (0,)) -> Op:
    attributes = {"tag": 1, "group": group}
    return Op(kind="embed", name="embed", outputs=(_view("x", width),), attributes=attributes)


def matrix(name: str, outputs: int, inputs: int, unit: int) -> Weight:
    """A weight of which only the sizes matter."""
    return Weight(name=name, parts=(), outputs=outputs, inputs=inputs, unit=unit)


def products(weights: Sequence[Weight], *, on_grid: bool, turns: int = 1) -> Program:
    """``turns`` products with each of the weights, which have the same shape."""
    first = weights[0]
    x = _view("x", first.inputs)
    y = _view("y", first.outputs)
    kind = "linear_grid" if on_grid else "linear"
    ops = [
        Op(kind=kind, name=weight.name, inputs=(x,), outputs=(y,), weight=weight.name)
        for weight in weights
    ]
    dtype = "grid" if on_grid else "f32"
    return _program(
        [_embed(first.inputs), *ops * turns],
        [
            Buffer(name="x", width=first.inputs),
            Buffer(name="y", width=first.outputs, dtype=dtype),
        ],
        hidden=first.inputs,
        weights=weights,
    )


def amid_weights(program: Program, weights: Sequence[Weight]) -> Program:
    """The program with a product before each of its operations but an attention, which follows its
    append: so that they find the caches as between the weights of a model."""
    x, y = _view("px", weights[0].inputs), _view("py", weights[0].outputs)
    ops: list[Op] = []
    for op in program.ops:
        if op.kind != "attention":
            weight = weights[len(ops) % len(weights)].name
            ops.append(Op(kind="linear", name=weight, inputs=(x,), outputs=(y,), weight=weight))
        ops.append(op)
    buffers = {"px": Buffer(name="px", width=x.width), "py": Buffer(name="py", width=y.width)}
    return replace(
        program,
        ops=tuple(ops),
        buffers={**program.buffers, **buffers},
        weights={**program.weights, **{weight.name: weight for weight in weights}},
    )


def norms(width: int, count: int) -> Program:
    """RMS norms of one vector."""
    op = Op(
        kind="rms_norm",
        name="norm",
        inputs=(_view("x", width),),
        outputs=(_view("y", width),),
        vector="norm",
        attributes={"groups": 1, "dim": width, "eps": NORM_EPS},
    )
    return _program(
        [op] * count,
        [Buffer(name="x", width=width), Buffer(name="y", width=width)],
        vectors=[Vector(name="norm", parts=(), size=width)],
    )


def gates(width: int, count: int) -> Program:
    """Gated activations."""
    x, up, y = _view("x", width), _view("up", width), _view("y", width)
    attributes = {"function": 0, "limit": 0.0, "alpha": 0.0}
    op = Op(kind="gated_mul", name="gate", inputs=(x, up), outputs=(y,), attributes=attributes)
    buffers = [Buffer(name=view.buffer, width=width) for view in (x, up, y)]
    return _program([op] * count, buffers)


def ropes(heads: int, dim: int, count: int) -> Program:
    """Rotations of all heads by an angle of nought."""
    x = _view("x", heads * dim)
    half = dim // 2
    attributes = {
        "heads": heads, "dim": dim, "offset": 0, "rotary": 2 * half, "interleaved": 0,
        "to_dim": dim, "to_offset": 0, "table": 0,
    }  # fmt: skip
    op = Op(kind="rope", name="rope", inputs=(x,), outputs=(x,), attributes=attributes)
    buffers = [Buffer(name="x", width=heads * dim)]
    return _program([op] * count, buffers, frequencies=(RopeTable(frequencies=(0.0,) * half),))


def attention(heads: int, kv_heads: int, dim: int, layers: int) -> Program:
    """Attention in ``layers`` layers, each after an append to a cache of its own."""
    q, k, out = (
        _view("q", heads * dim),
        _view("k", kv_heads * dim),
        _view("out", heads * dim),
    )
    kv_map = tuple(head * kv_heads // heads for head in range(heads))
    ops = []
    for layer in range(layers):
        sizes: dict[str, Attribute] = {"cache": layer, "k_dim": dim, "v_dim": dim}
        append = {**sizes, "kv_heads": kv_heads}
        attend = {
            **sizes, "heads": heads, "scale": 1 / math.sqrt(dim), "window": 0, "kv_map": kv_map,
        }  # fmt: skip
        ops += [
            Op(kind="kv_append", name="kv", inputs=(k, k), attributes=append),
            Op(kind="attention", name="attention", inputs=(q,), outputs=(out,), attributes=attend),
        ]
    return _program(
        ops,
        [Buffer(name=view.buffer, width=view.width) for view in (q, k, out)],
        caches=(CacheShape(kv_heads=kv_heads, k_dim=dim, v_dim=dim),) * layers,
    )


def appends(kv_heads: int, dim: int, count: int) -> Program:
    """Stores of keys and values."""
    k = _view("k", kv_heads * dim)
    attributes = {"cache": 0, "kv_heads": kv_heads, "k_dim": dim, "v_dim": dim}
    op = Op(kind="kv_append", name="kv", inputs=(k, k), attributes=attributes)
    return _program(
        [op] * count,
        [Buffer(name="k", width=kv_heads * dim)],
        caches=(CacheShape(kv_heads=kv_heads, k_dim=dim, v_dim=dim),),
    )


def reduces(
    width: int,
    count: int,
    *,
    node: int = 0,
    num_nodes: int = 1,
    pair: tuple[int, ...] = (0,),
) -> Program:
    """All-reduces among ``pair``; a node that is none of them does nothing in a step."""
    grid, x = _view("grid", width), _view("x", width)
    ops = [
        Op(
            kind="all_reduce_add",
            name=f"reduce {number}",
            inputs=(grid, x),
            outputs=(x,),
            attributes={"tag": 2 + number, "group": pair, "contributors": pair},
        )
        for number in range(count)
    ]
    return _program(
        ops if node in pair else [],
        [Buffer(name="x", width=width), Buffer(name="grid", width=width, dtype="grid")],
        node=node,
        num_nodes=num_nodes,
    )


def tiny_model(hidden: int, vocab: int) -> Program:
    """All that a step needs to choose a token: embedding, one product, the logits."""
    taken = View(buffer="taken", offset=0, width=hidden)
    own = View(buffer="own", offset=0, width=vocab)
    ops = (
        _embed(hidden),
        Op(kind="take_rows", name="take_rows", inputs=(_view("x", hidden),), outputs=(taken,)),
        Op(kind="linear", name="lm_head", inputs=(taken,), outputs=(own,), weight="lm_head"),
        Op(
            kind="gather_logits",
            name="gather_logits",
            inputs=(own,),
            outputs=(_view("logits", vocab),),
            attributes={"tag": 2, "owners": ((0, 0, vocab),)},
        ),
    )
    return _program(
        ops,
        [
            Buffer(name="x", width=hidden),
            Buffer(name="taken", width=hidden, rows="logits"),
            Buffer(name="own", width=vocab, rows="logits"),
            Buffer(name="logits", width=vocab, rows="logits"),
        ],
        hidden=hidden,
        weights=[matrix("lm_head", vocab, hidden, hidden)],
        vocab_size=vocab,
    )
