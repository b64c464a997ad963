"""Uses up what is left of the processors, so that a CPU second is worth the same throughout.

Two processors of a rented machine are often the two threads of one core: how far one gets in a
second depends on whether the other works. Idlers run where nobody else wants to, and nowhere else.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.ground.servers import Ground

IDLE = """
import os
if hasattr(os, "SCHED_IDLE"):
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
else:
    os.nice(19)
while True:
    pass
"""


@contextmanager
def idlers(servers: Ground) -> Iterator[None]:
    """One for each processor, until the end of the block."""
    names = [servers.fresh("idler") for _ in range(os.cpu_count() or 1)]
    for name in names:
        servers.keeper.start(
            name,
            [sys.executable, "-I", "-S", "-c", IDLE],
            log=servers.folder / f"{name}.log",
            stop_signal=signal.SIGKILL,
        )
    try:
        yield
    finally:
        for name in names:
            servers.keeper.signal(name, signal.SIGKILL)
            servers.keeper.wait(name, 5.0)
