"""The unit of work between transport and database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

# Batches of up to so many records are applied together with those of other partitions.
SMALL_BATCH: Final = 100


class Batch(NamedTuple):
    """Records of one partition: all that the topic has with start <= offset < end."""

    topic: str
    partition: int
    start: int
    end: int
    records: Sequence[Any]

    def before(self, end: int) -> Batch:
        """Its part before an offset."""
        return self._replace(end=end, records=[r for r in self.records if r.offset < end])

    def since(self, start: int) -> Batch:
        """Its part from an offset on."""
        return self._replace(start=start, records=[r for r in self.records if r.offset >= start])

    @property
    def is_small(self) -> bool:
        """Whether a transaction of its own would cost more than what is in it."""
        return len(self.records) <= SMALL_BATCH
