"""The lock of a process's bound on its memory, which what it starts meanwhile would inherit."""

from __future__ import annotations

import threading

#: Held while this process has less than its own bound, and while it starts another one.
ADDRESS_SPACE = threading.RLock()
