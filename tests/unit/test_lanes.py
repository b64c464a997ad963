"""What lanes tell of themselves: when there is a backlog, and what does not move."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection

import pytest
from faust.types import TP

from db.offsets import Claim, Stored
from service.errors import Retryable
from streams.batches import Batch
from streams.lanes import READ_AGAIN_S, Lanes, Reached

PARTS = [TP("topic", number) for number in range(3)]


class Database:
    """Claims everything; batches wait until it lets them go, or are turned away."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.away = False
        self.rows: dict[TP, Stored] = {}

    async def claim(self, tps: Collection[TP], generation: int) -> dict[TP, Claim]:
        return {tp: Claim(tp.topic, tp.partition, 0, generation, 0, None, None) for tp in tps}

    async def apply(self, claim: Claim, batch: Batch, *, doubtful: bool) -> Reached:
        if self.away:
            raise Retryable("away")
        await self.open.wait()
        return Reached(batch.end, stopped=False)

    async def stored(self) -> dict[TP, Stored]:
        return self.rows


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
async def lanes(database: Database) -> AsyncIterator[Lanes]:
    async def crash(error: BaseException) -> None:
        raise error

    made = Lanes(database, active_partitions=2, batch_max_records=4_000, crash=crash)
    await made.claim(PARTS, 1)
    yield made
    database.open.set()
    await made.release()


async def put(lanes: Lanes, tp: TP, start: int, records: int) -> None:
    batch = Batch(tp.topic, tp.partition, start, start + records, [None] * records)
    assert lanes.reserve(tp, batch)
    lanes.admit(batch)
    await asyncio.sleep(0)


async def until_idle(lanes: Lanes) -> None:
    while not lanes.is_idle:
        await lanes.wait_for_room(0.1)


async def test_small_batches_that_wait_are_no_backlog(lanes: Lanes) -> None:
    for tp in PARTS:
        await put(lanes, tp, 0, 20)
        await put(lanes, tp, 20, 20)
        lanes.saw_end(tp, 60)
    assert not lanes.with_room(PARTS)
    assert not lanes.is_saturated


async def test_records_that_wait_in_the_lane_are_a_backlog(
    lanes: Lanes, database: Database
) -> None:
    await put(lanes, PARTS[0], 0, 600)
    await put(lanes, PARTS[0], 600, 600)
    assert lanes.is_saturated
    database.open.set()
    await until_idle(lanes)
    assert not lanes.is_saturated


async def test_records_that_wait_on_the_topic_are_a_backlog(lanes: Lanes) -> None:
    lanes.saw_end(PARTS[1], 1_500)
    assert lanes.is_saturated
    lanes.saw_end(PARTS[1], 10)
    assert not lanes.is_saturated


async def test_what_cannot_be_read_is_no_backlog(lanes: Lanes) -> None:
    """It may stay so for days, in which members are evaluated at full speed."""
    lanes.saw_end(PARTS[1], 1_500)
    lanes.unreadable(PARTS[1], ValueError("corrupt"))
    assert not lanes.is_saturated
    lanes.saw_end(PARTS[0], 1_500)
    assert lanes.is_saturated


async def test_nothing_stands_still_while_the_database_turns_a_batch_away(
    lanes: Lanes, database: Database
) -> None:
    assert set(lanes.unmoved_for(0)) == set(PARTS)
    database.away = True
    await put(lanes, PARTS[0], 0, 20)
    assert lanes.unmoved_for(0) == {}
    database.away = False
    database.open.set()
    await until_idle(lanes)
    assert lanes.unmoved_for(0) == {PARTS[0]: 20, PARTS[1]: 0, PARTS[2]: 0}


@pytest.mark.parametrize(
    ("stored", "is_lost"),
    [
        (Stored(20, 1, 0, None), False),
        (Stored(0, 1, 0, None), True),  # as before the batch
        (Stored(0, 0, 0, None), True),  # as before the claim
        (None, True),  # as before anybody's
        (Stored(30, 2, 0, None), False),  # somebody else's by now: the group will tell
    ],
)
async def test_a_database_that_has_gone_back(
    lanes: Lanes, database: Database, stored: Stored | None, is_lost: bool
) -> None:
    """Noticed without any further record, which would not fit."""
    await lanes.release()
    await lanes.claim(PARTS[:1], 1)
    database.open.set()
    await put(lanes, PARTS[0], 0, 20)
    await until_idle(lanes)
    database.rows = {} if stored is None else {PARTS[0]: stored}
    await lanes.compare()
    assert (lanes.unclaimed == 1) is is_lost


async def test_what_is_on_its_way_has_not_gone_back(lanes: Lanes, database: Database) -> None:
    await put(lanes, PARTS[0], 0, 20)
    database.rows = {tp: Stored(0, 1, 0, None) for tp in PARTS}
    await lanes.compare()
    assert lanes.unclaimed == 0


async def test_what_cannot_be_read_is_tried_again_later_and_harms_nobody_else(
    lanes: Lanes, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    spoilt, *others = PARTS
    lanes.unreadable(spoilt, ValueError("damaged"))
    assert lanes.with_room(PARTS) == set(others)
    assert lanes.unreadable_partitions == {spoilt: "ValueError at offset 0"}
    now += READ_AGAIN_S
    assert lanes.with_room(PARTS) == set(PARTS)
    # It does not move, and no end of the process would change that.
    now += 1_000
    assert set(lanes.unmoved_for(60)) == set(others)
    database.open.set()
    await put(lanes, spoilt, 0, 20)
    assert lanes.unreadable_partitions == {}


async def test_a_batch_that_got_lost_on_its_way_is_fetched_again(
    lanes: Lanes, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.lanes.LOST_AFTER_S", 0.1)
    losing, busy, idle = PARTS
    lost, following = (Batch("topic", 0, at, at + 20, [None] * 20) for at in (0, 20))
    assert lanes.reserve(losing, lost)
    assert lanes.reserve(losing, following)
    lanes.admit(following)
    # This one takes long, which is not its fault.
    await put(lanes, busy, 0, 20)
    assert lanes.reserve(busy, Batch("topic", 1, 20, 40, [None] * 20))
    database.rows = {idle: Stored(0, 1, 0, None)}
    await lanes.compare()
    assert lanes.unclaimed == 0
    await asyncio.sleep(0.2)
    await lanes.compare()
    assert lanes.unclaimed == 1
    assert lanes.expected(losing) is None
    assert lanes.expected(busy) == 40
    async with asyncio.timeout(10):
        while lanes.expected(losing) is None:
            await lanes.wait_for_room(1.0)
    assert lanes.expected(losing) == 0
    assert lanes.with_room([losing]) == {losing}
