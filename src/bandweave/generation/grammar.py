"""Grammar: what holds an answer to a form, as the generator sees it.

What a matcher says is a function of its grammar and of the tokens so far, so that one that is lost
is made again by telling them to a new one. Knows no library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


class Matcher(Protocol):
    """One answer's place in its grammar."""

    def allowed(self) -> Mask:
        """``[V]``: which tokens may come next. In any thread, one at a time; ``NoTokenError`` where
        the grammar takes more than it may."""
        ...

    def accept(self, token: int) -> None:
        """A token, one of those that may come, has come."""
        ...


MakeMatcher = Callable[[str], Matcher]
"""A matcher at the start of a grammar. ``ValueError`` for what is no grammar."""
