"""AttentionOps: the operations of attention, and of what stands in its place. See ``graph``."""

from __future__ import annotations

import math
from dataclasses import replace

from bandweave.models.attention_spec import LatentSpec, LinearSpec
from bandweave.models.cut import heads
from bandweave.models.graph_op import Attributes, Split, Value, WeightSpec
from bandweave.models.op_list import OpList
from bandweave.models.rope import RopeSpec


class AttentionOps(OpList):
    """Heads, latents, and states."""

    def head_norm(
        self, value: Value, weight: str, head_dim: int, *, offset: float | None = None
    ) -> Value:
        """RMS norm of each head on its own, in place; ``offset``: added to its weights, the model's
        where None."""
        vector = self.weight(weight, (head_dim,), Split.REPLICATED)
        own = self.spec.norm_offset if offset is None else offset
        return self.emit(
            "head_norm", weight, (value,), (value,), weights=(vector,), attributes={"offset": own}
        )[0]

    def norm_of_all(self, q: Value, k: Value, q_weight: str, k_weight: str) -> tuple[Value, Value]:
        """RMS norms of queries and of keys, each over all of its heads together, in place."""
        vectors = tuple(
            self.weight(name, (value.width,), Split.ALL_TO_SHARDED, value.cut)
            for name, value in ((q_weight, q), (k_weight, k))
        )
        self.emit("norm_of_all", "qk_norm", (q, k), (q, k), weights=vectors)
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
        return self.emit("rope", name, (value,), (value,), attributes=attributes)[0]

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
            vectors = (self.weight("sinks", (one_each.total,), Split.ALL_TO_SHARDED, one_each),)
        return self.emit(
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
            self.weight(name, (cut.total * cut.width, inputs), Split.ALL_TO_SHARDED, cut)
            for name, cut, inputs in (
                ("k_b_proj", latents, spec.nope_dim), ("v_b_proj", made, spec.kv_rank),
            )
        )  # fmt: skip
        out = Value(name="attended", width=made.total * made.width, cut=made)
        return self.emit(
            "latent_attention", "attention", (q, kv), (out,), weights=weights,
            attributes={"latent": spec},
        )[0]  # fmt: skip

    def part_norm(self, value: Value, weight: str, size: int, eps: float) -> Value:
        """RMS norm of the first ``size`` elements of each row, in place."""
        vector = self.weight(weight, (size,), Split.REPLICATED)
        return self.emit(
            "part_norm", weight, (value,), (value,), weights=(vector,), attributes={"eps": eps}
        )[0]

    def short_conv(self, values: tuple[Value, ...], kernel: int) -> tuple[Value, ...]:
        """SiLU of a causal convolution over ``kernel`` rows of a sequence, channel by channel, of
        values that one product made side by side; ``X_conv`` are the weights of a value ``X``,
        ``[channels, kernel]``, the latest row's last."""
        weights = tuple(
            self.weight(f"{one.name}_conv", (one.width, kernel), Split.ALL_TO_SHARDED, one.cut)
            for one in values
        )
        made = tuple(replace(one, name=f"{one.name}_mixed") for one in values)
        return self.emit(
            "short_conv", "short_conv", values, made, weights=weights,
            attributes={"kernel": kernel},
        )  # fmt: skip

    def l2_norm(self, value: Value, dim: int, eps: float, *, factor: float = 1.0) -> Value:
        """Each head of ``dim`` elements over the root of its sum of squares and ``eps``, times
        ``factor``, in place."""
        attributes = {"dim": dim, "eps": eps, "factor": factor}
        return self.emit(
            "l2_norm", f"{value.name}_norm", (value,), (value,), attributes=attributes
        )[0]

    def delta_gates(self, write: Value, decay: Value) -> Value:
        """What each value head writes, ``sigmoid(write)``, and keeps of its state,
        ``exp(-exp(delta_rate) * softplus(decay + delta_step))``: the former of all heads, then the
        latter."""
        vectors = tuple(
            self.weight(name, (decay.width,), Split.ALL_TO_SHARDED, decay.cut)
            for name in ("delta_rate", "delta_step")
        )
        out = Value(name="delta_gates", width=2 * decay.width, cut=decay.cut)
        return self.emit(
            "delta_gates", "delta_gates", (write, decay), (out,), weights=vectors
        )[0]  # fmt: skip

    def delta_rule(self, q: Value, k: Value, v: Value, gates: Value, spec: LinearSpec) -> Value:
        """The gated delta rule (Yang et al. 2024, arXiv:2412.06464), row after row of a sequence;
        ``q``, ``k`` and ``v`` lie side by side."""
        out = Value(name="delta_out", width=v.width, cut=v.cut)
        return self.emit(
            "delta_rule", "delta_rule", (q, k, v, gates), (out,), attributes={"linear": spec}
        )[0]  # fmt: skip
