"""What a layer's MLP may be: one, or a mixture of experts with its router. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

from bandweave.models.limits import MOST_EXPERTS, MOST_SIZE, check_sizes


@dataclass(frozen=True, kw_only=True)
class GateSpec:
    """The function of an MLP's gate: ``"silu"``, ``"gelu_tanh"``, or ``"clamped_silu"`` with its
    ``limit`` and ``alpha`` (docs/numerics.md, section 5)."""

    function: str = "silu"
    limit: float = 0.0
    alpha: float = 0.0


@dataclass(frozen=True, kw_only=True)
class MlpSpec:
    """A gated MLP (Shazeer 2020, arXiv:2002.05202)."""

    intermediate_size: int
    gate: GateSpec = GateSpec()
    bias: bool = False

    def __post_init__(self) -> None:
        check_sizes(self, intermediate_size=MOST_SIZE)


SOFTMAX, SIGMOID, SOFTMAX_OF_CHOSEN = "softmax", "sigmoid", "softmax_of_chosen"
LARGEST, TWO_LARGEST = "largest", "two_largest"


@dataclass(frozen=True, kw_only=True)
class RouterSpec:
    """How a mixture's experts are chosen and weighted (docs/numerics.md, section 12).

    ``scoring``: of the logits; ``logit_bias``: a number is added to each logit; ``correction``: to
    each score, for the choice alone (DeepSeek-V3, arXiv:2412.19437). With ``groups`` only experts
    of the best ``top_groups`` are chosen, by ``group_score``: a group's largest score or its two
    largest. ``normalise``: weights are divided by their sum; all are multiplied by ``factor``.
    """

    scoring: str = SOFTMAX
    logit_bias: bool = False
    correction: bool = False
    groups: int = 1
    top_groups: int = 1
    group_score: str = LARGEST
    normalise: bool = False
    factor: float = 1.0

    def __post_init__(self) -> None:
        assert self.scoring in (SOFTMAX, SIGMOID, SOFTMAX_OF_CHOSEN), self.scoring
        assert self.group_score in (LARGEST, TWO_LARGEST), self.group_score
        check_sizes(self, groups=MOST_EXPERTS, top_groups=MOST_EXPERTS)


@dataclass(frozen=True, kw_only=True)
class MixtureSpec:
    """A mixture of gated MLPs of ``intermediate_size`` (Shazeer et al. 2017, arXiv:1701.06538),
    ``top_k`` of ``num_experts`` for each token beside a shared one of ``shared_size``, 0 for none.

    ``shared_gate``: the shared one is weighted by a logistic function of its own; ``bias``: each
    expert's products have biases.
    """

    num_experts: int
    top_k: int
    intermediate_size: int
    router: RouterSpec = RouterSpec()
    gate: GateSpec = GateSpec()
    shared_size: int = 0
    shared_gate: bool = False
    bias: bool = False

    def __post_init__(self) -> None:
        check_sizes(self, num_experts=MOST_EXPERTS, top_k=MOST_EXPERTS, intermediate_size=MOST_SIZE)
        router = self.router
        if self.top_k > self.num_experts:
            raise ValueError(f"{self.top_k} of {self.num_experts} experts cannot be chosen")
        if self.num_experts % router.groups:
            raise ValueError(
                f"{self.num_experts} experts do not make {router.groups} groups of one size"
            )
        if router.top_groups > router.groups:
            raise ValueError(f"{router.top_groups} of {router.groups} groups cannot be chosen")
        each = self.num_experts // router.groups
        if each * router.top_groups < self.top_k:
            raise ValueError(
                f"{router.top_groups} groups of {each} experts are too few to choose "
                f"{self.top_k} experts from"
            )
        if router.group_score == TWO_LARGEST and router.groups > 1 and each < 2:
            raise ValueError("a group's two largest scores need two experts a group")
        if not 0 <= self.shared_size <= MOST_SIZE:
            raise ValueError(f"shared_size is {self.shared_size}; it must be 0 to {MOST_SIZE}")

    @property
    def slots(self) -> int:
        """MLPs that a token goes through."""
        return self.top_k + (1 if self.shared_size else 0)


Mlp = MlpSpec | MixtureSpec
