"""MixtureOps: the operations of a mixture of experts. See ``graph``."""

from __future__ import annotations

from bandweave.models.cut import columns
from bandweave.models.graph_op import Split, Value
from bandweave.models.mlp_spec import MixtureSpec
from bandweave.models.op_list import OpList


class MixtureOps(OpList):
    """The router, and the experts' products."""

    def route(self, y: Value, mixture: MixtureSpec) -> Value:
        """The chosen experts of each row and their weights, on every node alike."""
        router = mixture.router
        weights = [self.weight("router", (mixture.num_experts, y.width), Split.REPLICATED)]
        if mixture.shared_size and mixture.shared_gate:
            weights.append(self.weight("shared_expert.gate", (1, y.width), Split.REPLICATED))
        vectors = [
            self.weight(name, (mixture.num_experts,), Split.REPLICATED) if given else None
            for name, given in (
                ("router.bias", router.logit_bias),
                ("router.correction", router.correction),
            )
        ]
        out = Value(name="routes", width=2 * mixture.slots)
        return self.emit(
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
                weights.append(self.weight(full, shape, Split.ALL_TO_SHARDED, cut))
                vector = None
                if mixture.bias:
                    vector = self.weight(f"{full}.bias", (width,), Split.ALL_TO_SHARDED, cut)
                biases.append(vector)
        out = Value(name="expert_gate_up", width=0)  # its width is each node's own
        return self.emit(
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
            weights.append(self.weight(full, shape, Split.SHARDED_TO_ALL, cut))
            vector = None
            if mixture.bias:
                vector = self.weight(f"{full}.bias", (out.width,), Split.REPLICATED)
            biases.append(vector)
        return self.emit(
            kind, "experts.down", inputs, (out,), weights=tuple(weights),
            biases=tuple(biases), attributes={"mixture": mixture},
        )[0]  # fmt: skip


def _experts(mixture: MixtureSpec) -> list[tuple[str, int]]:
    """The names of a mixture's experts and their columns, the shared one last."""
    routed = [(f"experts.{e}", mixture.intermediate_size) for e in range(mixture.num_experts)]
    return [*routed, ("shared_expert", mixture.shared_size)] if mixture.shared_size else routed
