"""Graph: what one step of a model computes, as a flat list of operations on named values.

A family's text calls the methods below and reads like the paper. A graph knows no nodes, no
formats and no arrays. It carries rows, not sequences: every value is ``[rows, width]``. A weight
declares how it may be split; whether it is split, and how, is the plan's business.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache

from bandweave.models.attention_spec import LatentSpec, LinearSpec
from bandweave.models.cut import VOCABULARY_UNIT, Cut, columns, heads, vocabulary
from bandweave.models.mlp_spec import GateSpec, MixtureSpec
from bandweave.models.rope import RopeSpec
from bandweave.models.spec import ModelSpec

Attributes = Mapping[str, int | float | str | RopeSpec | MixtureSpec | LatentSpec | LinearSpec]


class Split(Enum):
    """What a product does to the data when its weight is split over nodes."""

    REPLICATED = "replicated"  # every node holds all of it
    ALL_TO_SHARDED = "all_to_sharded"  # every node reads all inputs and makes some outputs
    SHARDED_TO_ALL = "sharded_to_all"  # every node reads its inputs; the sums meet in an all-reduce


@dataclass(frozen=True, kw_only=True)
class SplitUnit:
    """What of a tensor no split divides: runs of ``size`` rows (elements, of a vector), or of
    ``size`` columns, counted from the first; the last may be shorter."""

    columns: bool
    size: int


@lru_cache(1024)
def _split_unit(columns: bool, size: int) -> SplitUnit:
    """Few different ones are asked for a hundred thousand times."""
    return SplitUnit(columns=columns, size=size)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightSpec:
    """A tensor that the model needs: ``shape`` is ``(outputs, inputs)``, or ``(size,)``.

    ``cut``: of dim 0 for ``all_to_sharded``, of dim 1 for ``sharded_to_all``.
    """

    name: str
    shape: tuple[int, ...]
    split: Split
    cut: Cut | None = None

    @property
    def unit(self) -> SplitUnit:
        """The unit by which it may be split, and its content is compared."""
        columns = self.split is Split.SHARDED_TO_ALL
        if self.cut is not None:
            return _split_unit(columns, self.cut.unit)
        if len(self.shape) == 2:  # the embedding and routers, read by rows
            return _split_unit(columns, VOCABULARY_UNIT)
        return _split_unit(columns, self.shape[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """A ``[rows, width]`` float32 array; ``cut`` says how its width is split, if at all."""

    name: str
    width: int
    cut: Cut | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphOp:
    """One operation. ``layer`` is None outside the layers; ``drafts``: it belongs to the pass that
    drafts, in which the model's further layer computes alone."""

    kind: str
    name: str
    layer: int | None
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    weights: tuple[WeightSpec, ...] = ()
    biases: tuple[WeightSpec | None, ...] = ()
    attributes: Attributes = field(default_factory=dict)
    drafts: bool = False

    def number(self, attribute: str) -> int | float:
        """An attribute that is a number."""
        value = self.attributes[attribute]
        assert isinstance(value, int | float), (self.name, attribute)
        return value


#: The value that holds the normed last hidden states, where a further layer reads them.
HIDDEN = "hidden"


@dataclass(eq=False)
class Graph:
    """The operations of one step, in order. Kinds: ``embed``, ``rms_norm``, ``linear``,
    ``layer_norm``, ``head_norm``, ``part_norm``, ``norm_of_all``, ``rope``, ``attention``,
    ``latent_attention``, ``short_conv``, ``l2_norm``, ``delta_gates``, ``delta_rule``,
    ``gated_mul``, ``linear_add``, ``linear_sum``, ``add``, ``route``, ``expert_linear``,
    ``expert_add``, ``expert_sum``, ``logits``; in the pass that drafts also ``pick_rows`` and
    ``norm_beside``."""

    spec: ModelSpec
    ops: list[GraphOp] = field(default_factory=list)
    _layer: int | None = None
    _drafts: bool = False
    _alike: tuple[int, ...] = ()

    @contextmanager
    def layer(self, index: int) -> Iterator[None]:
        """Names and tags what is emitted inside as part of layer ``index``."""
        self._layer = index
        yield
        self._layer = None

    @contextmanager
    def drafting(self) -> Iterator[None]:
        """What is emitted inside belongs to the pass that drafts, which comes last."""
        self._drafts = True
        with self.layer(self.spec.num_layers):
            yield
        self._drafts = False

    def alike(self) -> tuple[int, ...]:
        """For each layer the first one that has the same operations: the same sizes, attributes and
        names but for the layer's own."""
        if len(self._alike) != self.spec.num_layers:
            layers: dict[int, list[object]] = {}
            for op in self.ops:
                if op.layer is not None and not op.drafts:
                    layers.setdefault(op.layer, []).append(_without_layer(op))
            firsts: dict[tuple[object, ...], int] = {}
            self._alike = tuple(
                firsts.setdefault(tuple(ops), layer) for layer, ops in sorted(layers.items())
            )
        return self._alike

    def weights(self) -> list[WeightSpec]:
        """Every tensor that the graph names, each once, in order of first use."""
        seen: dict[str, WeightSpec] = {}
        for op in self.ops:
            for weight in (*op.weights, *(bias for bias in op.biases if bias is not None)):
                seen.setdefault(weight.name, weight)
        return list(seen.values())

    def embed(self) -> Value:
        """Embedding rows of the step's tokens, times the model's factor: the residual ``x``,
        ``[rows, hidden_size]``."""
        attributes = {"factor": self.spec.embedding_factor}
        shape = (self.spec.vocab_size, self.spec.hidden_size)
        table = WeightSpec(name="embed_tokens", shape=shape, split=Split.REPLICATED)
        x = Value(name="embedded" if self._drafts else "x", width=self.spec.hidden_size)
        return self._emit("embed", "embed", (), (x,), weights=(table,), attributes=attributes)[0]

    def last_hidden(self) -> Value:
        """For each row the normed hidden state, of a row of the last step, that the step names."""
        width = self.spec.hidden_size
        out = Value(name="last_hidden", width=width)
        return self._emit("pick_rows", "last_hidden", (Value(name=HIDDEN, width=width),), (out,))[0]

    def join_normed(self, values: tuple[tuple[Value, str], ...], weight: str) -> Value:
        """The residual ``x``: the product of several values side by side, each normed with a weight
        of its own. The columns of the product are split."""
        cut = columns(sum(value.width for value, _ in values), self.spec.column_unit)
        both = Value(name="both", width=cut.total, cut=cut)
        offset = 0
        for value, norm in values:
            vector = self._weight(norm, (value.width,), Split.REPLICATED)
            attributes = {"offset": offset}
            self._emit("norm_beside", norm, (value,), (both,), (vector,), attributes=attributes)
            offset += value.width
        x = Value(name="x", width=self.spec.hidden_size)
        matrix = self._weight(weight, (x.width, cut.total), Split.SHARDED_TO_ALL, cut)
        return self._emit("linear_sum", weight, (both,), (x,), (matrix,), (None,))[0]

    def norm(self, x: Value, weight: str, *, out: str = "y") -> Value:
        """The model's kind of norm: root-mean-square (Zhang and Sennrich 2019, arXiv:1910.07467),
        or LayerNorm without bias (Ba et al. 2016, arXiv:1607.06450). ``out`` names what it
        gives."""
        vector = self._weight(weight, (x.width,), Split.REPLICATED)
        kind = {"rms": "rms_norm", "layer": "layer_norm"}[self.spec.norm]
        y = Value(name=out, width=x.width)
        return self._emit(kind, weight, (x,), (y,), weights=(vector,))[0]

    def linear(
        self,
        y: Value,
        weights: tuple[tuple[str, Cut | int], ...],
        *,
        bias: bool = False,
        label: str = "",
    ) -> tuple[Value, ...]:
        """Several products of one input: a name and its outputs each. Outputs that have a cut are
        split (``all_to_sharded``), others computed by every node. ``label`` names them together,
        else all their names do."""
        specs, biases, values = [], [], []
        for name, made in weights:
            cut = made if isinstance(made, Cut) else None
            outputs = made if isinstance(made, int) else made.total * made.width
            split = Split.REPLICATED if cut is None else Split.ALL_TO_SHARDED
            specs.append(self._weight(name, (outputs, y.width), split, cut))
            vector = self._weight(f"{name}.bias", (outputs,), split, cut)
            biases.append(vector if bias else None)
            values.append(Value(name=name.removesuffix("_proj"), width=outputs, cut=cut))
        label = label or "_".join(value.name for value in values) + "_proj"
        return self._emit(
            "linear", label, (y,), tuple(values), weights=tuple(specs), biases=tuple(biases)
        )

    def head_norm(
        self, value: Value, weight: str, head_dim: int, *, offset: float | None = None
    ) -> Value:
        """RMS norm of each head on its own, in place; ``offset``: added to its weights, the model's
        where None."""
        vector = self._weight(weight, (head_dim,), Split.REPLICATED)
        own = self.spec.norm_offset if offset is None else offset
        return self._emit(
            "head_norm", weight, (value,), (value,), weights=(vector,), attributes={"offset": own}
        )[0]

    def short_conv(self, values: tuple[Value, ...], kernel: int) -> tuple[Value, ...]:
        """SiLU of a causal convolution over ``kernel`` rows of a sequence, channel by channel, of
        values that one product made side by side; ``X_conv`` are the weights of a value ``X``,
        ``[channels, kernel]``, the latest row's last."""
        weights = tuple(
            self._weight(f"{one.name}_conv", (one.width, kernel), Split.ALL_TO_SHARDED, one.cut)
            for one in values
        )
        made = tuple(replace(one, name=f"{one.name}_mixed") for one in values)
        return self._emit(
            "short_conv", "short_conv", values, made, weights=weights,
            attributes={"kernel": kernel},
        )  # fmt: skip

    def l2_norm(self, value: Value, dim: int, eps: float, *, factor: float = 1.0) -> Value:
        """Each head of ``dim`` elements over the root of its sum of squares and ``eps``, times
        ``factor``, in place."""
        attributes = {"dim": dim, "eps": eps, "factor": factor}
        return self._emit(
            "l2_norm", f"{value.name}_norm", (value,), (value,), attributes=attributes
        )[0]

    def delta_gates(self, write: Value, decay: Value) -> Value:
        """What each value head writes, ``sigmoid(write)``, and keeps of its state,
        ``exp(-exp(delta_rate) * softplus(decay + delta_step))``: the former of all heads, then the
        latter."""
        vectors = tuple(
            self._weight(name, (decay.width,), Split.ALL_TO_SHARDED, decay.cut)
            for name in ("delta_rate", "delta_step")
        )
        out = Value(name="delta_gates", width=2 * decay.width, cut=decay.cut)
        return self._emit(
            "delta_gates", "delta_gates", (write, decay), (out,), weights=vectors
        )[0]  # fmt: skip

    def delta_rule(self, q: Value, k: Value, v: Value, gates: Value, spec: LinearSpec) -> Value:
        """The gated delta rule (Yang et al. 2024, arXiv:2412.06464), row after row of a sequence;
        ``q``, ``k`` and ``v`` lie side by side."""
        out = Value(name="delta_out", width=v.width, cut=v.cut)
        return self._emit(
            "delta_rule", "delta_rule", (q, k, v, gates), (out,), attributes={"linear": spec}
        )[0]  # fmt: skip

    def norm_of_all(self, q: Value, k: Value, q_weight: str, k_weight: str) -> tuple[Value, Value]:
        """RMS norms of queries and of keys, each over all of its heads together, in place."""
        vectors = tuple(
            self._weight(name, (value.width,), Split.ALL_TO_SHARDED, value.cut)
            for name, value in ((q_weight, q), (k_weight, k))
        )
        self._emit("norm_of_all", "qk_norm", (q, k), (q, k), weights=vectors)
        return q, k

    def rope(
        self, value: Value, rope: RopeSpec, *, dim: int | None = None, offset: int = 0
    ) -> Value:
        """Rotates the heads of a value by their rows' positions, in place: of each ``dim``
        elements, a head of its cut where None, ``rope.rotary_dim`` from ``offset`` on."""
        if dim is None:
            dim = value.width if value.cut is None else value.cut.width
        name = f"{value.name}_rope"
        attributes: Attributes = {"rope": rope, "dim": dim, "offset": offset}
        return self._emit("rope", name, (value,), (value,), attributes=attributes)[0]

    def attention(
        self,
        q: Value,
        k: Value,
        v: Value,
        *,
        head_dim: int,
        window: int | None = None,
        scale: float | None = None,
        cap: float = 0.0,
        sinks: bool = False,
    ) -> Value:
        """Appends ``k`` and ``v`` to the layer's cache, then attends causally over the cache.

        ``window``: keys that a row sees, None for all of them; ``scale``: of the scores, None for
        one over the square root of a head's elements; ``cap``: bounds them, 0 for no bound;
        ``sinks``: each head has a score that no key has.
        """
        out = Value(name="attended", width=q.width, cut=q.cut)
        attributes = {
            "window": window or 0,
            "scale": 1 / math.sqrt(head_dim) if scale is None else scale,
            "cap": cap,
        }
        vectors: tuple[WeightSpec, ...] = ()
        if sinks:
            assert q.cut is not None
            one_each = heads(q.cut.total, 1)
            vectors = (self._weight("sinks", (one_each.total,), Split.ALL_TO_SHARDED, one_each),)
        return self._emit(
            "attention", "attention", (q, k, v), (out,), weights=vectors, attributes=attributes
        )[0]

    def latent_attention(self, q: Value, kv: Value, spec: LatentSpec) -> Value:
        """Appends ``kv``, the latent and the rotated key of each row, to the layer's cache, then
        attends causally over it. What would make a head's keys of latents, ``k_b_proj``, makes
        latents of its queries instead, and ``v_b_proj`` outputs of what it attended to."""
        step = self.spec.head_unit(spec)
        latents = heads(spec.num_heads, spec.kv_rank, step)
        made = heads(spec.num_heads, spec.v_dim, step)
        weights = tuple(
            self._weight(name, (cut.total * cut.width, inputs), Split.ALL_TO_SHARDED, cut)
            for name, cut, inputs in (
                ("k_b_proj", latents, spec.nope_dim), ("v_b_proj", made, spec.kv_rank),
            )
        )  # fmt: skip
        out = Value(name="attended", width=made.total * made.width, cut=made)
        return self._emit(
            "latent_attention", "attention", (q, kv), (out,), weights=weights,
            attributes={"latent": spec},
        )[0]  # fmt: skip

    def part_norm(self, value: Value, weight: str, size: int, eps: float) -> Value:
        """RMS norm of the first ``size`` elements of each row, in place."""
        vector = self._weight(weight, (size,), Split.REPLICATED)
        return self._emit(
            "part_norm", weight, (value,), (value,), weights=(vector,), attributes={"eps": eps}
        )[0]

    def gated_mul(self, gate: Value, up: Value, spec: GateSpec, *, out: str = "gated") -> Value:
        """``f(gate) * up``; ``out`` names what it gives."""
        value = Value(name=out, width=gate.width, cut=gate.cut)
        return self._emit("gated_mul", f"{out}_mul", (gate, up), (value,), attributes=vars(spec))[0]

    def linear_add(self, x: Value, inputs: Value, weight: str, *, bias: bool = False) -> Value:
        """``x + inputs @ weight.T``, ``sharded_to_all``: where the nodes' sums meet."""
        shape = (x.width, inputs.width)
        matrix = self._weight(weight, shape, Split.SHARDED_TO_ALL, inputs.cut)
        vector = self._weight(f"{weight}.bias", (x.width,), Split.REPLICATED) if bias else None
        return self._emit(
            "linear_add", weight, (x, inputs), (x,), weights=(matrix,), biases=(vector,)
        )[0]

    def linear_sum(self, inputs: Value, weight: str, *, bias: bool = False) -> Value:
        """``inputs @ weight.T``, ``sharded_to_all``: the nodes' sums, which every node gets."""
        width = self.spec.hidden_size
        matrix = self._weight(weight, (width, inputs.width), Split.SHARDED_TO_ALL, inputs.cut)
        vector = self._weight(f"{weight}.bias", (width,), Split.REPLICATED) if bias else None
        out = Value(name="sum", width=width)
        return self._emit(
            "linear_sum", weight, (inputs,), (out,), weights=(matrix,), biases=(vector,)
        )[0]

    def add(self, x: Value, other: Value, name: str, *, factor: float = 1.0) -> Value:
        """``x + other * factor``, in place of ``x``."""
        return self._emit("add", name, (x, other), (x,), attributes={"factor": factor})[0]

    def route(self, y: Value, mixture: MixtureSpec) -> Value:
        """The chosen experts of each row and their weights, on every node alike."""
        router = mixture.router
        weights = [self._weight("router", (mixture.num_experts, y.width), Split.REPLICATED)]
        if mixture.shared_size and mixture.shared_gate:
            weights.append(self._weight("shared_expert.gate", (1, y.width), Split.REPLICATED))
        vectors = [
            self._weight(name, (mixture.num_experts,), Split.REPLICATED) if given else None
            for name, given in (
                ("router.bias", router.logit_bias),
                ("router.correction", router.correction),
            )
        ]
        out = Value(name="routes", width=2 * mixture.slots)
        return self._emit(
            "route", "router", (y,), (out,), weights=tuple(weights), biases=tuple(vectors),
            attributes={"mixture": mixture},
        )[0]  # fmt: skip

    def expert_linear(self, y: Value, routes: Value, mixture: MixtureSpec) -> Value:
        """Gate and up of each row's experts, and of the shared one: their columns are split."""
        weights, biases = [], []
        for name, width in _experts(mixture):
            cut = columns(width, self.spec.column_unit)
            for product in ("gate_proj", "up_proj"):
                full, shape = f"{name}.{product}", (width, y.width)
                weights.append(self._weight(full, shape, Split.ALL_TO_SHARDED, cut))
                vector = None
                if mixture.bias:
                    vector = self._weight(f"{full}.bias", (width,), Split.ALL_TO_SHARDED, cut)
                biases.append(vector)
        out = Value(name="expert_gate_up", width=0)  # its width is each node's own
        return self._emit(
            "expert_linear", "experts.gate_up", (y, routes), (out,), weights=tuple(weights),
            biases=tuple(biases), attributes={"mixture": mixture},
        )[0]  # fmt: skip

    def expert_add(self, x: Value, made: Value, routes: Value, mixture: MixtureSpec) -> Value:
        """``x`` plus the weighted sum of what the experts make of ``f(gate) * up``: where the
        nodes' sums meet."""
        return self._expert_sum("expert_add", (x, made, routes), x, mixture)

    def expert_sum(self, made: Value, routes: Value, mixture: MixtureSpec) -> Value:
        """That sum on its own, which every node gets."""
        out = Value(name="sum", width=self.spec.hidden_size)
        return self._expert_sum("expert_sum", (made, routes), out, mixture)

    def _expert_sum(
        self, kind: str, inputs: tuple[Value, ...], out: Value, mixture: MixtureSpec
    ) -> Value:
        weights, biases = [], []
        for name, width in _experts(mixture):
            full, shape = f"{name}.down_proj", (out.width, width)
            cut = columns(width, self.spec.column_unit)
            weights.append(self._weight(full, shape, Split.SHARDED_TO_ALL, cut))
            vector = None
            if mixture.bias:
                vector = self._weight(f"{full}.bias", (out.width,), Split.REPLICATED)
            biases.append(vector)
        return self._emit(
            kind, "experts.down", inputs, (out,), weights=tuple(weights),
            biases=tuple(biases), attributes={"mixture": mixture},
        )[0]  # fmt: skip

    def logits(self, y: Value) -> Value:
        """The vocabulary projection of the rows whose logits the step asks for, times the model's
        factor and then within its bound."""
        shape = (self.spec.vocab_size, y.width)
        name = "embed_tokens" if self.spec.tied_embeddings else "lm_head"
        matrix = WeightSpec(
            name=name, shape=shape, split=Split.ALL_TO_SHARDED, cut=vocabulary(self.spec.vocab_size)
        )
        out = Value(name="logits", width=self.spec.vocab_size, cut=vocabulary(self.spec.vocab_size))
        attributes = {"factor": self.spec.logit_factor, "cap": self.spec.logit_cap}
        return self._emit(
            "logits", "lm_head", (y,), (out,), weights=(matrix,), attributes=attributes
        )[0]

    def _weight(
        self, name: str, shape: tuple[int, ...], split: Split, cut: Cut | None = None
    ) -> WeightSpec:
        full = name if self._layer is None else f"layers.{self._layer}.{name}"
        return WeightSpec(name=full, shape=shape, split=split, cut=cut)

    def _emit(
        self,
        kind: str,
        name: str,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        weights: tuple[WeightSpec, ...] = (),
        biases: tuple[WeightSpec | None, ...] = (),
        *,
        attributes: Attributes | None = None,
    ) -> tuple[Value, ...]:
        full = name if self._layer is None else f"layers.{self._layer}.{name}"
        self.ops.append(
            GraphOp(
                kind=kind,
                name=full,
                layer=self._layer,
                inputs=inputs,
                outputs=outputs,
                weights=weights,
                biases=biases,
                attributes=attributes or {},
                drafts=self._drafts,
            )
        )
        return outputs


def _experts(mixture: MixtureSpec) -> list[tuple[str, int]]:
    """The names of a mixture's experts and their columns, the shared one last."""
    routed = [(f"experts.{e}", mixture.intermediate_size) for e in range(mixture.num_experts)]
    return [*routed, ("shared_expert", mixture.shared_size)] if mixture.shared_size else routed


def _without_layer(op: GraphOp) -> tuple[object, ...]:
    """All that an operation is but its layer's number."""
    start = len(f"layers.{op.layer}.")
    weights = tuple(
        None if one is None else (one.name[start:], one.shape, one.split, one.cut)
        for one in (*op.weights, *op.biases)
    )
    return (
        op.kind, op.name[start:], op.inputs, op.outputs, weights, tuple(op.attributes.items())
    )  # fmt: skip
