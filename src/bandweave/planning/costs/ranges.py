"""Ranges: how far a prediction may be off, by kind of split. Packaged data.

The rates' own ranges say what is known of a class of engine and hardware; on machines that no fit
saw, predictions of some kinds of split are further off. ``data/ranges.csv``, which ``calibration``
makes, says by what power a range must grow so that four in five unseen rows lie inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from bandweave.planning.costs.deployment import BANDWEAVE, ON_THE_CARD, Deployment
from bandweave.planning.machines.tables import required, rows

_UNTRIED = 2.0  # assumed, of a split that nobody has published over such a link
KINDS = ("one", "tensor", "stages", "beside")


def split_kind(deployment: Deployment) -> str:
    """``one`` node, a ``tensor`` split (mixtures included), ``stages`` one after the other, or
    cards ``beside`` host memory."""
    for node, rates in enumerate(deployment.nodes):
        if rates.host is not None and deployment.placement(node) != ON_THE_CARD:
            return "beside"
    if len(deployment.nodes) == 1:
        return "one"
    return "tensor" if any(len(stage.nodes) > 1 for stage in deployment.stages) else "stages"


def range_power(deployment: Deployment, *, reading: bool) -> float:
    """What the logarithm of a range is multiplied by; ``reading``: of a prefill. bandweave's own
    ranges are assumed or measured, not calibrated."""
    if deployment.engine.name == BANDWEAVE.name:
        return 1.0
    kind = split_kind(deployment)
    decode, prefill = _table()[kind]
    wider = _UNTRIED if kind == "tensor" and deployment.engine.tensor_untried else 1.0
    return wider * (prefill if reading else decode)


@lru_cache(maxsize=1)
def _table() -> Mapping[str, tuple[float, float]]:
    return {
        row["split"]: (required(row, "decode"), required(row, "prefill")) for row in rows("ranges")
    }
