"""AttentionOps: the operations of attention, and of what stands in its place, in numpy.

Suffixes: T rows of the step, N outputs, H heads, D elements of a head.
"""

from __future__ import annotations

from bandweave.executors.executor import Step
from bandweave.executors.reference import delta, math
from bandweave.executors.reference.attention import attention
from bandweave.executors.reference.op_state import OpState
from bandweave.executors.reference.products import linear
from bandweave.programs.program import Op


class AttentionOps(OpState):
    """Heads, latents, and states; a method for each kind."""

    def _rope(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        x_THD = self._heads(source, op.number("dim"))
        frequencies, factor = self._frequencies[op.number("table")]
        start = op.number("offset")
        stop = start + op.number("rotary")
        turned = math.rope(
            x_THD[..., start:stop],
            step.positions,
            frequencies,
            factor=factor,
            interleaved=bool(op.number("interleaved")),
        )
        y_THD = self._heads(target, op.number("to_dim"))  # a copy where heads are not contiguous
        first = op.number("to_offset")
        y_THD[..., first : first + op.number("rotary")] = turned
        self._set(target, y_THD)

    def _kv_append(self, op: Op, step: Step) -> None:
        k, v = op.inputs
        cache = self._caches[op.number("cache")]
        cache.append(step, self._heads(k, op.number("k_dim")), self._heads(v, op.number("v_dim")))

    def _attention(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        y_THD = attention(
            step,
            self._heads(source, op.number("k_dim")),
            self._caches[op.number("cache")],
            kv_map=op.numbers("kv_map"),
            window=op.number("window"),
            scale=op.real("scale"),
            cap=op.real("cap"),
            sinks_H=self._vector(op),
        )
        self._set(target, y_THD)

    def _latent_append(self, op: Op, step: Step) -> None:
        (k,) = op.inputs
        self._caches[op.number("cache")].append(step, self._heads(k, op.number("k_dim")))

    def _latent_attention(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        y_THD = attention(
            step,
            self._heads(source, op.number("k_dim")),
            self._caches[op.number("cache")],
            kv_map=(0,) * op.number("heads"),
            window=0,
            scale=op.real("scale"),
        )
        self._set(target, y_THD)

    def _head_linear(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        names = op.names("matrices")
        x_THD = self._heads(source, source.width // len(names))
        y_THD = self._heads(target, target.width // len(names))
        for head, name in enumerate(names):
            assert name is not None
            matrix = self._weights.matrices[name]
            outputs, inputs = matrix.shape
            y_THD[:, head, :outputs] = linear(x_THD[:, head, :inputs], matrix, None)
        self._set(target, y_THD)

    def _short_conv(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        weights = self._vector(op)
        assert weights is not None
        state = self._states[op.number("state")]
        x_TN, kernel = self._get(source), op.number("kernel")
        self._set(target, delta.short_conv(x_TN, weights, kernel, state, self._turns))

    def _l2_norm(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        x_THD = self._heads(source, op.number("dim"))
        self._set(target, delta.l2_norm(x_THD, op.real("eps"), op.real("factor")))

    def _delta_gates(self, op: Op, step: Step) -> None:
        (source,), (target,) = op.inputs, op.outputs
        vector = self._vector(op)
        assert vector is not None
        self._set(target, delta.delta_gates(self._get(source), vector, op.number("heads")))

    def _delta_rule(self, op: Op, step: Step) -> None:
        (source, gates), (target,) = op.inputs, op.outputs
        sizes = delta.Heads(*(op.number(name) for name in delta.Heads._fields))
        state = self._states[op.number("state")]
        x_TN, gates_TN = self._get(source), self._get(gates)
        self._set(target, delta.delta_rule(x_TN, gates_TN, sizes, state, self._turns))
