"""Whether workers keep their claims while the database comes back without its latest commits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

from tests.faults.scene import Scene
from tests.faults.workers import Worker

CLAIMS = "SELECT count(*) FROM test_audit WHERE new_epoch > old_epoch"
OWNERS = """
SELECT array_agg((topic, partition, owner, generation)::text ORDER BY topic, partition)
FROM stream_offset"""


class Claims(NamedTuple):
    """How often partitions were claimed so far, and who owns them."""

    made: int
    owners: Sequence[str]

    @classmethod
    async def of(cls, it: Scene) -> Self:
        """Those of now."""
        return cls(await it.value(CLAIMS), await it.value(OWNERS))

    async def check(self, it: Scene, workers: Sequence[Worker]) -> None:
        """Everybody has stayed in the group, and claimed anew only what the server lacked.

        What the intake commits is not waited for: a server that crashed, or a standby in its place,
        may lack the latest of it. Whoever finds that claims anew, where the server stands, and
        reads on from there.
        """
        now = await Claims.of(it)
        assert now.owners == self.owners, "somebody left the group"
        behind = sum(worker.said("claim_lost") for worker in workers)
        assert now.made == self.made + behind, "somebody lost a claim for no reason"
        assert behind == sum(worker.said(" stands at ") for worker in workers)
