"""How often a worker looks for cycles among its objects."""

from __future__ import annotations

import gc
from typing import Final

# Python's own is 700, 10, 10. Batches and pages are tuples by the ten thousand, which go by
# themselves: looking at them took a third of the time of decoding.
COLLECT_AFTER: Final = (20_000, 20, 50)


def collect_rarely() -> None:
    """For a process that works in bulk, once it has imported what it needs."""
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
