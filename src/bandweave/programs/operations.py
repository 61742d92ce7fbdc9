"""Operations: the one table of what a program can hold, for Python and C++ alike.

``cmake/make_operations.py`` makes a C++ header of it when the native core is built, so that this
file imports nothing of the package. Encoding, decoding, checks, printing, costs and the executors'
dispatch all follow the table; what an operation computes is the executors' business.

T = rows of the step, L = rows that ask for logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from zlib import crc32


@dataclass(frozen=True, kw_only=True)
class Operand:
    """A view that an operation reads or writes.

    ``dtype``: ``"f32"``, or ``"grid"`` for int64 sums. ``rows``: ``"step"``, ``"logits"``, or
    ``"same"`` for those that the operation's other views have. ``width``: what its width is the
    product of, the number of pieces first: attributes, ``hidden_size``, or another operand's
    width; empty where a rule of the operation's own says it. ``optional``: absent on some nodes.
    """

    name: str
    dtype: str = "f32"
    rows: str = "step"
    width: tuple[str, ...] = ()
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """A constant of an operation; ``type`` is one of ``ATTRIBUTE_TYPES``."""

    name: str
    type: str


#: Types of attributes, and how each is held in C++.
ATTRIBUTE_TYPES: Mapping[str, str] = {
    "count": "int",  # from 0
    "real": "float",
    "tag": "uint32_t",  # of an exchange: the same number on every node
    "cache": "int",  # an index into the program's caches
    "state": "int",  # an index into the program's states
    "frequencies": "int",  # an index into the program's tables of rope frequencies
    "indices": "std::vector<int>",
    "matrices": "std::vector<int>",  # indices into the program's matrices, -1 for one elsewhere
    "nodes": "std::vector<int>",  # nodes of the mesh, each once
    "owners": "std::vector<std::array<int, 3>>",  # node, start, stop
}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One kind of operation.

    ``weight``: it reads a matrix, from the first input to the output. ``vector``: the attribute or
    operand whose size its vector has, empty for none; ``optional_vector``: it may have none.
    ``shared``: what of every row the threads of a node share out: ``"rows"`` whole ones,
    ``"lanes"`` runs of numbers, ``"panels"`` of a matrix, ``"keys"``, ``"states"`` of sequences,
    ``"one"`` thread does it, or the attribute that counts its pieces, which then are the same in
    each such operation.

    ``cost``: what it takes time for (programs/work.py): ``"product"``, ``"experts"``,
    ``"heads"``, ``"attention"``, ``"state"``, ``"elements"`` of its first input, ``"sum"``,
    ``"message"`` or ``"nothing"``. ``timed_as``: the kind of elements that it is timed as, its own
    where empty. ``item``: of the bill of a step.
    """

    kind: str
    does: str
    inputs: tuple[Operand, ...] = ()
    outputs: tuple[Operand, ...] = ()
    weight: bool = False
    vector: str = ""
    optional_vector: bool = False
    attributes: tuple[Attribute, ...] = ()
    shared: str = "rows"
    cost: str = "elements"
    timed_as: str = ""
    item: str = "other"


def _attributes(**types: str) -> tuple[Attribute, ...]:
    return tuple(Attribute(name=name, type=type) for name, type in types.items())


#: The functions of a gate: SiLU, tanh's approximation of GELU, and gpt-oss's, which bounds the gate
#: from above and ``up`` on both sides by ``limit``: ``(up + 1) * gate * sigmoid(alpha * gate)``;
#: and the logistic function alone.
GATES = ("silu", "gelu_tanh", "clamped_silu", "sigmoid")

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        kind="embed",
        does="x [T, hidden] = the step's embedding rows; node 0 passes them on to its group",
        outputs=(Operand(name="x", width=("hidden_size",)),),
        attributes=_attributes(tag="tag", group="nodes"),
        shared="one",
        cost="message",
        item="exchange",
    ),
    Operation(
        kind="recv",
        does="x [T, hidden] = rows from a node of the stage before",
        outputs=(Operand(name="x", width=("hidden_size",)),),
        attributes=_attributes(tag="tag", peers="nodes"),
        shared="one",
        cost="message",
        item="exchange",
    ),
    Operation(
        kind="send",
        does="x [T, hidden] goes to nodes of the stage behind",
        inputs=(Operand(name="x", width=("hidden_size",)),),
        attributes=_attributes(tag="tag", peers="nodes"),
        shared="one",
        cost="message",
        item="exchange",
    ),
    Operation(
        kind="rms_norm",
        does="y = norm(x) * vector, over each of groups groups of dim elements",
        inputs=(Operand(name="x", rows="same", width=("groups", "dim")),),
        outputs=(Operand(name="y", rows="same", width=("x",)),),
        vector="dim",
        attributes=_attributes(groups="count", dim="count", eps="real"),
        shared="groups",
    ),
    Operation(
        kind="layer_norm",
        does="y = (x - mean) / deviation * vector, over each of groups groups of dim elements",
        inputs=(Operand(name="x", rows="same", width=("groups", "dim")),),
        outputs=(Operand(name="y", rows="same", width=("x",)),),
        vector="dim",
        attributes=_attributes(groups="count", dim="count", eps="real"),
        shared="groups",
        timed_as="rms_norm",
    ),
    Operation(
        kind="square_sums",
        does="columns [begin, end) of grid = float32 bits of each head's sum of squares of heads "
        "heads of dim, all but the first skip of them, from column first on; 0 elsewhere",
        inputs=(Operand(name="x", width=("heads", "dim")),),
        outputs=(Operand(name="grid", dtype="grid"),),
        attributes=_attributes(
            heads="count", dim="count", skip="count", first="count", begin="count", end="count"
        ),
        timed_as="rms_norm",
    ),
    Operation(
        kind="all_reduce_bits",
        does="grid = the sum of the contributors' grids over the nodes of the group, exact in any "
        "wire format, in place",
        inputs=(Operand(name="grid", dtype="grid"),),
        outputs=(Operand(name="sums", dtype="grid", width=("grid",)),),
        attributes=_attributes(tag="tag", group="nodes", contributors="nodes"),
        shared="lanes",
        cost="sum",
        item="exchange",
    ),
    Operation(
        kind="norm_by_sums",
        does="y = norm(x) * vector over all nodes' heads, whose sums of squares are the float32 "
        "bits in columns [begin, end) of grid",
        inputs=(
            Operand(name="x", width=("heads", "dim")),
            Operand(name="grid", dtype="grid"),
        ),
        outputs=(Operand(name="y", width=("x",)),),
        vector="x",
        attributes=_attributes(heads="count", dim="count", begin="count", end="count", eps="real"),
        timed_as="rms_norm",
    ),
    Operation(
        kind="linear",
        does="y = x @ weight.T (+ vector), outputs split (all_to_sharded)",
        inputs=(Operand(name="x", rows="same"),),
        outputs=(Operand(name="y", rows="same"),),
        weight=True,
        vector="y",
        optional_vector=True,
        shared="panels",
        cost="product",
        item="weights",
    ),
    Operation(
        kind="rope",
        does="rotates rotary elements, from offset on, of heads heads of dim by the row's "
        "position, in place, or to to_offset in heads of to_dim of another buffer; the pairs are "
        "elements 2 i and 2 i + 1 where interleaved is 1, else i and i + rotary / 2",
        inputs=(Operand(name="x", width=("heads", "dim")),),
        outputs=(Operand(name="y", width=("heads", "to_dim")),),
        attributes=_attributes(
            heads="count",
            dim="count",
            offset="count",
            to_dim="count",
            to_offset="count",
            rotary="count",
            interleaved="count",
            table="frequencies",
        ),
        shared="heads",
    ),
    Operation(
        kind="kv_append",
        does="stores k and v of kv_heads heads at the row's position of a cache",
        inputs=(
            Operand(name="k", width=("kv_heads", "k_dim")),
            Operand(name="v", width=("kv_heads", "v_dim")),
        ),
        attributes=_attributes(cache="cache", kv_heads="count", k_dim="count", v_dim="count"),
        shared="kv_heads",
        item="attention",
    ),
    Operation(
        kind="attention",
        does="y = attention of heads query heads over a cache; scores are scaled, and bounded by "
        "cap unless it is 0; kv_map[h] is head h's KV head; window 0 sees all; vector: a score a "
        "head that no key has",
        inputs=(Operand(name="q", width=("heads", "k_dim")),),
        outputs=(Operand(name="y", width=("heads", "v_dim")),),
        vector="heads",
        optional_vector=True,
        attributes=_attributes(
            cache="cache",
            heads="count",
            k_dim="count",
            v_dim="count",
            scale="real",
            cap="real",
            window="count",
            kv_map="indices",
        ),
        shared="keys",
        cost="attention",
        item="attention",
    ),
    Operation(
        kind="head_linear",
        does="y = x @ matrix.T of each head with a matrix of its own; a head's numbers may have "
        "others behind them, which stay",
        inputs=(Operand(name="x"),),
        outputs=(Operand(name="y"),),
        attributes=_attributes(matrices="matrices"),
        shared="panels",
        cost="heads",
        item="weights",
    ),
    Operation(
        kind="latent_append",
        does="stores k at the row's position of a latent cache",
        inputs=(Operand(name="k", width=("k_dim",)),),
        attributes=_attributes(cache="cache", k_dim="count"),
        item="attention",
    ),
    Operation(
        kind="latent_attention",
        does="y = attention of heads query heads over a latent cache, whose values are the first "
        "v_dim elements of its keys; scores are scaled",
        inputs=(Operand(name="q", width=("heads", "k_dim")),),
        outputs=(Operand(name="y", width=("heads", "v_dim")),),
        attributes=_attributes(
            cache="cache",
            heads="count",
            k_dim="count",
            v_dim="count",
            scale="real",
        ),
        shared="keys",
        cost="attention",
        item="attention",
    ),
    Operation(
        kind="short_conv",
        does="y = silu of the sum of kernel rows of x, the last of them the row's own, each times "
        "its weight of the channel; a sequence's rows before the step's are in its state; vector: "
        "kernel weights a channel, weights in all",
        inputs=(Operand(name="x"),),
        outputs=(Operand(name="y", width=("x",)),),
        vector="weights",
        attributes=_attributes(state="state", kernel="count", weights="count"),
        shared="states",
        timed_as="gated_mul",
    ),
    Operation(
        kind="l2_norm",
        does="y = x / root(sum of squares + eps) * factor, over each of groups groups of dim "
        "elements",
        inputs=(Operand(name="x", width=("groups", "dim")),),
        outputs=(Operand(name="y", width=("x",)),),
        attributes=_attributes(groups="count", dim="count", eps="real", factor="real"),
        shared="groups",
        timed_as="rms_norm",
    ),
    Operation(
        kind="delta_gates",
        does="y [T, 2 heads] = sigmoid(write), then exp(-exp(rate) * softplus(decay + step)); x is "
        "write and decay of all heads, the vector rate and step",
        inputs=(Operand(name="x"),),
        outputs=(Operand(name="y", width=("x",)),),
        vector="x",
        attributes=_attributes(heads="count"),
        timed_as="gated_mul",
    ),
    Operation(
        kind="delta_rule",
        does="y = what each value head's state S [k_dim, v_dim] gives for its query once the row "
        "has changed it: S = decay S, S += key (write (value - key S)); x is queries and keys of "
        "key_heads heads, then values; gates are write and decay of all value heads",
        inputs=(Operand(name="x"), Operand(name="gates")),
        outputs=(Operand(name="y", width=("heads", "v_dim")),),
        attributes=_attributes(
            state="state", heads="count", key_heads="count", k_dim="count", v_dim="count"
        ),
        shared="states",
        cost="state",
        item="attention",
    ),
    Operation(
        kind="gated_mul",
        does="y = f(gate) * up; function is a place in GATES; limit and alpha are clamped_silu's",
        inputs=(Operand(name="gate"), Operand(name="up", width=("gate",))),
        outputs=(Operand(name="y", width=("gate",)),),
        attributes=_attributes(function="count", limit="real", alpha="real"),
        shared="lanes",
    ),
    Operation(
        kind="linear_grid",
        does="grid (int64) = x @ weight.T by units of k (sharded_to_all)",
        inputs=(Operand(name="x"),),
        outputs=(Operand(name="grid", dtype="grid"),),
        weight=True,
        shared="panels",
        cost="product",
        item="weights",
    ),
    Operation(
        kind="route",
        does="routes [T, 2 slots] = the chosen experts of each row, ascending, and their weights; "
        "scores are softmax (0), sigmoid (1), or softmax over the chosen (2); the vector is added "
        "to them for the choice alone; with groups only experts of the best top_groups are chosen, "
        "by a group's largest score (0) or its two largest (1); a shared expert comes last, with "
        "weight 1 (1) or the logistic function of the last logit (2)",
        inputs=(Operand(name="logits"),),
        outputs=(Operand(name="routes"),),
        vector="experts",
        optional_vector=True,
        attributes=_attributes(
            experts="count",
            top_k="count",
            scoring="count",
            normalise="count",
            factor="real",
            groups="count",
            top_groups="count",
            group_score="count",
            shared="count",
        ),
        timed_as="rms_norm",
    ),
    Operation(
        kind="expert_linear",
        does="y [T, top_k width + shared_width] = x @ matrix.T (+ its part of the vector) of each "
        "chosen expert's matrix, side by side",
        inputs=(Operand(name="x"), Operand(name="routes")),
        outputs=(Operand(name="y"),),
        vector="biases",
        optional_vector=True,
        attributes=_attributes(
            matrices="matrices",
            top_k="count",
            width="count",
            shared_width="count",
            biases="count",
        ),
        shared="panels",
        cost="experts",
        item="weights",
    ),
    Operation(
        kind="expert_mul",
        does="y [T, top_k width + shared_width] = f(gate) * up of each chosen expert, "
        "as in gated_mul; gate and up lie side by side",
        inputs=(Operand(name="x"),),
        outputs=(Operand(name="y"),),
        attributes=_attributes(
            top_k="count",
            width="count",
            shared_width="count",
            function="count",
            limit="real",
            alpha="real",
        ),
        timed_as="gated_mul",
    ),
    Operation(
        kind="expert_grid",
        does="grid (int64) = the sum over chosen experts of weight * (x @ matrix.T (+ its part of "
        "the vector)) by units of k (sharded_to_all)",
        inputs=(Operand(name="x"), Operand(name="routes")),
        outputs=(Operand(name="grid", dtype="grid"),),
        vector="biases",
        optional_vector=True,
        attributes=_attributes(
            matrices="matrices",
            top_k="count",
            width="count",
            shared_width="count",
            biases="count",
        ),
        shared="panels",
        cost="experts",
        item="weights",
    ),
    Operation(
        kind="all_reduce_add",
        does="x += the sum of the contributors' grids (+ vector), over the nodes of the group",
        inputs=(Operand(name="grid", dtype="grid"), Operand(name="x", width=("grid",))),
        outputs=(Operand(name="y", width=("grid",)),),
        vector="grid",
        optional_vector=True,
        attributes=_attributes(tag="tag", group="nodes", contributors="nodes"),
        shared="lanes",
        cost="sum",
        item="exchange",
    ),
    Operation(
        kind="all_reduce",
        does="y = the sum of the contributors' grids (+ vector), over the nodes of the group",
        inputs=(Operand(name="grid", dtype="grid"),),
        outputs=(Operand(name="y", width=("grid",)),),
        vector="grid",
        optional_vector=True,
        attributes=_attributes(tag="tag", group="nodes", contributors="nodes"),
        shared="lanes",
        cost="sum",
        item="exchange",
    ),
    Operation(
        kind="add",
        does="y = x + other * factor",
        inputs=(Operand(name="x"), Operand(name="other", width=("x",))),
        outputs=(Operand(name="y", width=("x",)),),
        attributes=_attributes(factor="real"),
        shared="lanes",
        timed_as="all_reduce_add",
    ),
    Operation(
        kind="scale",
        does="y = x * factor",
        inputs=(Operand(name="x", rows="same"),),
        outputs=(Operand(name="y", rows="same", width=("x",)),),
        attributes=_attributes(factor="real"),
        shared="lanes",
        timed_as="all_reduce_add",
    ),
    Operation(
        kind="soft_cap",
        does="y = cap * tanh(x / cap)",
        inputs=(Operand(name="x", rows="same"),),
        outputs=(Operand(name="y", rows="same", width=("x",)),),
        attributes=_attributes(cap="real"),
        shared="lanes",
        timed_as="gated_mul",
    ),
    Operation(
        kind="take_rows",
        does="y [L, width] = the rows of x that ask for logits",
        inputs=(Operand(name="x"),),
        outputs=(Operand(name="y", rows="logits", width=("x",)),),
        cost="nothing",
    ),
    Operation(
        kind="pick_rows",
        does="y = the rows of x, as the last step left it, that the step names: one for each row",
        inputs=(Operand(name="x"),),
        outputs=(Operand(name="y", width=("x",)),),
        cost="nothing",
    ),
    Operation(
        kind="gather_logits",
        does="the owners' logits meet at node 0; owners are (node, start, stop) each",
        inputs=(Operand(name="own", rows="logits", optional=True),),
        outputs=(Operand(name="logits", rows="logits", optional=True),),
        attributes=_attributes(tag="tag", owners="owners"),
        shared="one",
        cost="message",
        item="exchange",
    ),
)

BY_KIND: Mapping[str, Operation] = {operation.kind: operation for operation in OPERATIONS}
KIND_NUMBERS: Mapping[str, int] = {
    operation.kind: number for number, operation in enumerate(OPERATIONS)
}


def _encoded(operation: Operation) -> tuple[object, ...]:
    """What of an operation an encoded program relies on."""
    views = (len(operation.inputs), len(operation.outputs))
    attributes = tuple((one.name, one.type) for one in operation.attributes)
    return operation.kind, views, operation.weight, bool(operation.vector), attributes


#: Tells programs that were encoded with this table from those of another.
OPERATIONS_DIGEST = crc32(repr(tuple(map(_encoded, OPERATIONS))).encode())
