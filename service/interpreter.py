"""How processes that run for long set the interpreter up."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress
from typing import Final

# Python's own is 700, 10, 10. Batches and pages are tuples by the ten thousand, which go by
# themselves: looking at them took a third of the time of decoding. What was imported stays, and
# with the web framework it is so much that looking through it would hold up a request.
COLLECT_AFTER: Final = (60_000, 20, 50)
# More than there are of records and rows on their way through a worker: else one collection follows
# the other under a backlog, 8 % of its time. Between backlogs `streams.timers` collects.
COLLECT_AFTER_IN_BULK: Final = (150_000, 20, 50)
# Python's own is 5 ms: so long the loop waits for the consumer's thread, a few times on the way of
# each record. Measured at 1,000 records/s: 210 ms instead of 270 until a change is on its topic.
SWITCH_INTERVAL_S: Final = 0.0005
# Blocks of this size are given back at once when they are free. The C library would raise its
# limit with each large one (a fetch, a COPY), keep them all, and cut small ones out of them.
# Measured on a backlog of 700,000 records: 188 MB resident at most instead of 222. What asyncio
# reads into at once, 256 KB, has to be less: each page that is new costs a fault.
M_MMAP_THRESHOLD: Final = -3
LARGE_BLOCK: Final = 512 << 10
# So much may lie free at the end before it is given back. By itself the library would do so from
# 128 KB on, to ask for the same pages again with the next batch.
M_TRIM_THRESHOLD: Final = -1
KEPT_FREE: Final = 16 << 20


def prepare_interpreter(collect_after: tuple[int, int, int] = COLLECT_AFTER) -> None:
    """For a process that works in bulk or answers many, once it has imported what it needs."""
    gc.freeze()
    gc.set_threshold(*collect_after)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # Other C libraries than glibc have no such setting.
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)
        library.mallopt(M_TRIM_THRESHOLD, KEPT_FREE)
