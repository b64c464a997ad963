"""How a peer tells how far it is; standard library only, since every peer has its own packages.

Lines `progress <monotonic seconds> <records committed>` on standard output.
"""

import sys
import time

INTERVAL_S = 0.02


class Progress:
    """Counts committed records; says so now and then, and always at the end."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._count = 0
        self._said_at = 0.0

    def add(self, records: int) -> bool:
        """So many more are committed; whether that was the last of them."""
        self._count += records
        now = time.monotonic()
        if self._count >= self._total or now - self._said_at >= INTERVAL_S:
            self._said_at = now
            sys.stdout.write(f"progress {now:.6f} {self._count}\n")
            sys.stdout.flush()
        return self._count >= self._total
