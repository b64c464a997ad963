"""What the demo knows at a moment: what went in, what came out. Filled by many, shown by one."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

RECENT: Final = 10


class SeenChange(NamedTuple):
    """One record of the change topic."""

    key: str
    from_level: str | None
    to_level: str | None
    cause: str


@dataclass
class Picture:
    """Counters by input kind, by level, by cause and by code; the latest changes."""

    stage: str = "starting"
    sent: Counter[str] = field(default_factory=Counter)
    applied: Counter[str] = field(default_factory=Counter)
    levels: dict[str, str] = field(default_factory=dict)
    level_records: int = 0
    tombstones: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    recent: deque[SeenChange] = field(default_factory=lambda: deque(maxlen=RECENT))
    dead_letters: Counter[str] = field(default_factory=Counter)
    links: list[str] = field(default_factory=list)
    began_at: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began_at

    @property
    def distribution(self) -> Counter[str]:
        """Members by published level."""
        return Counter(self.levels.values())
