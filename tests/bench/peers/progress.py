"""How a peer tells how far it is; standard library only, since every peer has its own packages.

Lines `progress <monotonic seconds> <records committed>` on standard output.
"""

import os
import time

INTERVAL_S = 0.02


class Progress:
    """Counts committed records; says so now and then, and always at the end."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._count = 0
        self._said_at = 0.0

    def begin(self) -> None:
        """The first record has come; for those who commit too rarely to start at a commit."""
        os.write(1, f"progress {time.monotonic():.6f} 0\n".encode())

    def add(self, records: int) -> bool:
        """So many more are committed; whether that was the last of them."""
        self._count += records
        now = time.monotonic()
        if self._count >= self._total or now - self._said_at >= INTERVAL_S:
            self._said_at = now
            # Not through sys.stdout, which some frameworks turn into a logger.
            os.write(1, f"progress {now:.6f} {self._count}\n".encode())
        return self._count >= self._total
