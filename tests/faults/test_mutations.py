"""Whether the checks would notice: each safeguard, taken out of the product, turns its scene red.

The same scene is green with the product as it is.
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import asyncpg
import pytest

from db import offsets
from service.demo.population import load
from tests.faults.attended import attended
from tests.faults.conftest import SceneMaker
from tests.faults.failpoints import Failpoint
from tests.faults.scene import Scene
from tests.faults.verifier import Report

pytestmark = pytest.mark.timeout(120)

# A database that is brought back to an earlier state, by a standby that lacks the latest or by a
# backup, while a worker goes on. The audit's trigger does not see it.
BACK_UP = "CREATE TABLE test_earlier AS SELECT * FROM stream_offset"
BRING_BACK = """
BEGIN;
SET LOCAL session_replication_role = replica;
DELETE FROM attendance_fact WHERE event_id = 'second';
UPDATE stream_offset s SET next_offset = e.next_offset, fingerprint = e.fingerprint
FROM test_earlier e WHERE e.topic = s.topic AND e.partition = s.partition;
COMMIT"""


def with_and_without(mutation: str) -> pytest.MarkDecorator:
    """The product, and the product without that safeguard."""
    return pytest.mark.parametrize("mutations", [[], [mutation]], ids=["product", "mutation"])


async def finished(it: Scene) -> Report:
    """What the verifier says once all is done."""
    await it.until_idle()
    await it.stop_workers()
    return await it.verify()


async def claim_as_another(it: Scene) -> None:
    """Another worker claims what there is, and then does nothing."""
    connection = await asyncpg.connect(
        it.database_url, server_settings={"application_name": "another"}
    )
    try:
        async with connection.transaction():
            claims = await offsets.claim(
                connection, dict.fromkeys(it.ends, 0), owner=uuid4(), generation=1_000
            )
    finally:
        await connection.close()
    assert len(claims) == len(it.ends)


@with_and_without("fence")
async def test_a_batch_of_a_lost_partition(scene: SceneMaker, mutations: list[str]) -> None:
    async with scene() as it:
        worker = it.worker("one", Failpoint("fence", "hold"), mutations=mutations)
        await worker.until_ready()
        await it.send([attended("ada", "first")])
        await worker.until_arrived("fence")
        await claim_as_another(it)
        worker.let_go("fence")
        report = await finished(it)
    if mutations:
        assert report.doubled == 1
        assert "which belongs to engagement-intake" not in report.summary()
        assert "which belongs to another" in report.summary()
    else:
        it.require(report)
        assert worker.said("claim_lost") == 1


async def bring_back(it: Scene) -> None:
    """Send two records, and let the database lose the second one after it was worked off."""
    await it.send([attended("ada", "first")])
    await it.until_idle()
    await it.execute(BACK_UP)
    await it.send([attended("ada", "second")])
    await it.until_idle()
    await it.execute(BRING_BACK)


@with_and_without("start")
async def test_a_database_that_was_brought_back(scene: SceneMaker, mutations: list[str]) -> None:
    # The next record is to show it, not the comparison that is made every now and then.
    constants = {"streams.timers:COMPARE_S": 600.0}
    async with scene() as it:
        worker = it.worker("one", mutations=mutations, constants=constants)
        await worker.until_ready()
        await bring_back(it)
        await it.send([attended("ada", "third")])
        report = await finished(it)
    if mutations:
        assert report.lost > 0
        assert "('club', 'ada', 'second') is missing" in report.summary()
    else:
        it.require(report)
        assert worker.said("claim_lost") == 1


async def test_a_database_that_was_brought_back_and_nothing_follows(scene: SceneMaker) -> None:
    """As after a crash, which may take the latest batches away, in the middle of the night."""
    async with scene() as it:
        worker = it.worker("one")
        await worker.until_ready()
        await bring_back(it)
        await worker.until_said("claim_lost")
        it.require(await finished(it))


@with_and_without("newest")
async def test_corrections_that_come_before_what_they_correct(
    scene: SceneMaker, mutations: list[str]
) -> None:
    records = list(load(1, 2_000, 200, ends_at=datetime.now(UTC)))
    async with scene() as it:
        worker = it.worker("one", mutations=mutations)
        await worker.until_ready()
        await it.send(reversed(records))
        report = await finished(it)
    if mutations:
        assert report.lost > 0
        assert "status attended instead of" in report.summary()
    else:
        it.require(report)
