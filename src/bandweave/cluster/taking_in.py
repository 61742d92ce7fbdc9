"""Taking in: whether a machine that is ready becomes a node now, or when nobody would wait for it.

Pure.
"""

from __future__ import annotations

_SHORT_SECONDS = 1.0  # a pause that hardly anybody notices
_SECONDS_PER_GAIN = 10.0  # worth waiting for a machine that doubles the speed
_PATIENCE = 0.1  # of the time that it has waited already


def is_worth(*, pause: float, gain: float, waited: float, idle: bool) -> bool:
    """``pause``: seconds for which all answers under way would stand still; ``gain``: how many
    times faster they would be afterwards; ``waited``: seconds for which the machine has been ready;
    ``idle``: nobody asks.

    At once where nobody asks or the pause is short; else where the gain is worth the pause, and the
    longer it has waited, the longer the pause may be.
    """
    patience = max(_SHORT_SECONDS, (gain - 1.0) * _SECONDS_PER_GAIN, waited * _PATIENCE)
    return idle or pause <= patience
