"""Graph: what one step of a model computes, as a flat list of operations on named values.

A family's text calls the methods below, those of attention (``attention_ops``) and of mixtures
(``mixture_ops``), and reads like the paper. A graph knows no nodes, no formats and no arrays. It
carries rows, not sequences: every value is ``[rows, width]``.
"""

from __future__ import annotations

from bandweave.models.attention_ops import AttentionOps
from bandweave.models.cut import Cut, columns, vocabulary
from bandweave.models.graph_op import Split, Value, WeightSpec
from bandweave.models.mixture_ops import MixtureOps
from bandweave.models.mlp_spec import GateSpec

#: The value that holds the normed last hidden states, where a further layer reads them.
HIDDEN = "hidden"


class Graph(AttentionOps, MixtureOps):
    """The operations of one step, in order. Kinds: ``embed``, ``rms_norm``, ``linear``,
    ``layer_norm``, ``head_norm``, ``part_norm``, ``norm_of_all``, ``rope``, ``attention``,
    ``latent_attention``, ``short_conv``, ``l2_norm``, ``delta_gates``, ``delta_rule``,
    ``gated_mul``, ``linear_add``, ``linear_sum``, ``add``, ``route``, ``expert_linear``,
    ``expert_add``, ``expert_sum``, ``logits``; in the pass that drafts also ``pick_rows`` and
    ``norm_beside``."""

    def embed(self) -> Value:
        """Embedding rows of the step's tokens, times the model's factor: the residual ``x``,
        ``[rows, hidden_size]``."""
        attributes = {"factor": self.spec.embedding_factor}
        shape = (self.spec.vocab_size, self.spec.hidden_size)
        table = WeightSpec(name="embed_tokens", shape=shape, split=Split.REPLICATED)
        x = Value(name="embedded" if self._drafts else "x", width=self.spec.hidden_size)
        return self.emit("embed", "embed", (), (x,), weights=(table,), attributes=attributes)[0]

    def last_hidden(self) -> Value:
        """For each row the normed hidden state, of a row of the last step, that the step names."""
        width = self.spec.hidden_size
        out = Value(name="last_hidden", width=width)
        return self.emit("pick_rows", "last_hidden", (Value(name=HIDDEN, width=width),), (out,))[0]

    def join_normed(self, values: tuple[tuple[Value, str], ...], weight: str) -> Value:
        """The residual ``x``: the product of several values side by side, each normed with a weight
        of its own. The columns of the product are split."""
        cut = columns(sum(value.width for value, _ in values), self.spec.column_unit)
        both = Value(name="both", width=cut.total, cut=cut)
        offset = 0
        for value, norm in values:
            vector = self.weight(norm, (value.width,), Split.REPLICATED)
            attributes = {"offset": offset}
            self.emit("norm_beside", norm, (value,), (both,), (vector,), attributes=attributes)
            offset += value.width
        x = Value(name="x", width=self.spec.hidden_size)
        matrix = self.weight(weight, (x.width, cut.total), Split.SHARDED_TO_ALL, cut)
        return self.emit("linear_sum", weight, (both,), (x,), (matrix,), (None,))[0]

    def norm(self, x: Value, weight: str, *, out: str = "y") -> Value:
        """The model's kind of norm: root-mean-square (Zhang and Sennrich 2019, arXiv:1910.07467),
        or LayerNorm without bias (Ba et al. 2016, arXiv:1607.06450). ``out`` names what it
        gives."""
        vector = self.weight(weight, (x.width,), Split.REPLICATED)
        kind = {"rms": "rms_norm", "layer": "layer_norm"}[self.spec.norm]
        y = Value(name=out, width=x.width)
        return self.emit(kind, weight, (x,), (y,), weights=(vector,))[0]

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
            specs.append(self.weight(name, (outputs, y.width), split, cut))
            vector = self.weight(f"{name}.bias", (outputs,), split, cut)
            biases.append(vector if bias else None)
            values.append(Value(name=name.removesuffix("_proj"), width=outputs, cut=cut))
        label = label or "_".join(value.name for value in values) + "_proj"
        return self.emit(
            "linear", label, (y,), tuple(values), weights=tuple(specs), biases=tuple(biases)
        )

    def gated_mul(self, gate: Value, up: Value, spec: GateSpec, *, out: str = "gated") -> Value:
        """``f(gate) * up``; ``out`` names what it gives."""
        value = Value(name=out, width=gate.width, cut=gate.cut)
        return self.emit("gated_mul", f"{out}_mul", (gate, up), (value,), attributes=vars(spec))[0]

    def linear_add(self, x: Value, inputs: Value, weight: str, *, bias: bool = False) -> Value:
        """``x + inputs @ weight.T``, ``sharded_to_all``: where the nodes' sums meet."""
        shape = (x.width, inputs.width)
        matrix = self.weight(weight, shape, Split.SHARDED_TO_ALL, inputs.cut)
        vector = self.weight(f"{weight}.bias", (x.width,), Split.REPLICATED) if bias else None
        return self.emit(
            "linear_add", weight, (x, inputs), (x,), weights=(matrix,), biases=(vector,)
        )[0]

    def linear_sum(self, inputs: Value, weight: str, *, bias: bool = False) -> Value:
        """``inputs @ weight.T``, ``sharded_to_all``: the nodes' sums, which every node gets."""
        width = self.spec.hidden_size
        matrix = self.weight(weight, (width, inputs.width), Split.SHARDED_TO_ALL, inputs.cut)
        vector = self.weight(f"{weight}.bias", (width,), Split.REPLICATED) if bias else None
        out = Value(name="sum", width=width)
        return self.emit(
            "linear_sum", weight, (inputs,), (out,), weights=(matrix,), biases=(vector,)
        )[0]

    def add(self, x: Value, other: Value, name: str, *, factor: float = 1.0) -> Value:
        """``x + other * factor``, in place of ``x``."""
        return self.emit("add", name, (x, other), (x,), attributes={"factor": factor})[0]

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
        return self.emit(
            "logits", "lm_head", (y,), (out,), weights=(matrix,), attributes=attributes
        )[0]
