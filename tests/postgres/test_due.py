"""Who is taken to be evaluated, and that nobody waits behind an endless row of others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from db import due

LIMIT = 1_000
# As many members of busy clubs as there are marks for in a few seconds of heavy traffic.
MEMBERS = """
INSERT INTO member (org_id, user_id)
SELECT 'busy', 'user-' || n FROM generate_series(1, 5_000) AS n
UNION ALL VALUES ('quiet', 'profiled'), ('changed', 'of-the-organisation'), ('quiet', 'late');
INSERT INTO engagement (member_id, org_id) SELECT member_id, org_id FROM member;
UPDATE engagement e SET wake_at = now() - interval '1 s'
FROM member m WHERE m.member_id = e.member_id AND m.user_id = 'late'"""
# One statement of the intake after the other; new ones come as fast as they are taken.
MARKS = """
INSERT INTO due_batch (cause, member_ids)
SELECT 'signals', array_agg(member_id) FROM member WHERE org_id = 'busy' GROUP BY member_id / 200"""
OTHERS = """
INSERT INTO due_user (user_id) VALUES ('profiled');
INSERT INTO due_organization (org_id, cause) VALUES ('changed', 'thresholds')"""
NAMES = "SELECT user_id FROM member WHERE org_id <> 'busy' AND member_id = ANY ($1::bigint[])"


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    made = await asyncpg.connect(database)
    await made.execute(MEMBERS)
    yield made
    await made.close()


async def test_marks_of_every_kind_are_taken_under_heavy_traffic(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(OTHERS)
    found: due.Causes = {}
    for _ in range(3):
        await connection.execute(MARKS)
        found |= await due.take(connection, LIMIT)
    rows = await connection.fetch(NAMES, list(found))
    assert {row[0] for row in rows} == {"profiled", "of-the-organisation", "late"}


async def test_a_page_stays_a_page(connection: asyncpg.Connection) -> None:
    """However much is due of every kind."""
    await connection.execute(MARKS)
    await connection.execute("INSERT INTO due_organization (org_id, cause) VALUES ('busy', 'x')")
    await connection.execute("INSERT INTO due_user (user_id) SELECT user_id FROM member")
    await connection.execute("INSERT INTO due_member (member_id, cause) SELECT member_id, 'y' "
                             "FROM member")  # fmt: skip
    await connection.execute("UPDATE engagement SET wake_at = now()")
    assert LIMIT <= len(await due.take(connection, LIMIT)) <= 2 * LIMIT


async def test_a_small_page_may_leave_no_room_for_every_kind(
    connection: asyncpg.Connection,
) -> None:
    """Then the others are left for the next one, as they are."""
    await connection.execute("INSERT INTO due_member (member_id, cause) SELECT member_id, 'y' "
                             "FROM member")  # fmt: skip
    await connection.execute(OTHERS)
    assert len(await due.take(connection, due.KINDS - 1)) == due.KINDS - 1
    assert await connection.fetchval("SELECT after_member_id FROM due_organization") == 0
    assert await connection.fetchval("SELECT count(*) FROM due_user") == 1


async def test_everything_is_taken_in_the_end(connection: asyncpg.Connection) -> None:
    await connection.execute(MARKS)
    await connection.execute(OTHERS)
    taken: set[int] = set()
    for _ in range(8):
        page = await due.take(connection, LIMIT)
        # Who is late stays so until it is evaluated.
        await connection.execute(
            "UPDATE engagement SET wake_at = NULL WHERE member_id = ANY ($1::bigint[])", list(page)
        )
        taken |= page.keys()
    assert len(taken) == 5_003
    assert not await due.any_due(connection)


async def marks_of(connection: asyncpg.Connection) -> list[tuple[int, str]]:
    rows = await connection.fetch(
        "SELECT m, cause FROM due_batch CROSS JOIN unnest(member_ids) AS u (m)"
    )
    return sorted((row[0], row[1]) for row in rows)


async def test_marks_of_one_member_are_brought_together(connection: asyncpg.Connection) -> None:
    for _ in range(3):
        await connection.execute(MARKS)
    await connection.execute("INSERT INTO due_batch (cause, member_ids, marked_at) "
                             "VALUES ('membership', '{7,8}', '2026-01-01Z')")  # fmt: skip
    before = await marks_of(connection)
    superfluous = await due.join_batches(connection)
    after = await marks_of(connection)
    assert after == sorted(set(before))
    assert superfluous == len(before) - len(after)
    assert (await connection.fetchval("SELECT max(cardinality(member_ids)) FROM due_batch")) == 200
    oldest = "SELECT min(marked_at) FROM due_batch WHERE cause = 'membership'"
    assert (await connection.fetchval(oldest)).year == 2026


async def test_marks_are_moved_only_where_it_saves_something(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(MARKS)
    rows = await connection.fetch("SELECT mark_id FROM due_batch ORDER BY 1")
    assert len(rows) < due.FEW_BATCHES
    assert await due.join_batches(connection) == 0
    assert await connection.fetch("SELECT mark_id FROM due_batch ORDER BY 1") == rows


async def test_marks_that_are_being_taken_stay_where_they_are(
    connection: asyncpg.Connection, database: str
) -> None:
    for _ in range(3):
        await connection.execute(MARKS)
    before = set(await marks_of(connection))
    other = await asyncpg.connect(database)
    try:
        taking = other.transaction()
        await taking.start()
        page = await due.take(other, LIMIT)
        await due.join_batches(connection)
        await taking.rollback()
    finally:
        await other.close()
    assert page
    assert set(await marks_of(connection)) == before


async def test_many_small_rows_make_one_page(connection: asyncpg.Connection) -> None:
    """As a steady stream leaves them: each batch of records marks a few members."""
    await connection.execute(
        "INSERT INTO due_batch (cause, member_ids) SELECT 'signals', ARRAY[member_id] FROM member "
        "WHERE org_id = 'busy' ORDER BY member_id LIMIT 750"
    )
    page = await due.take(connection, LIMIT)
    assert len(page) == 750 + 1  # and who is late


async def test_rows_that_were_only_looked_at_are_free_again(
    connection: asyncpg.Connection, database: str
) -> None:
    await connection.execute(MARKS)
    rows = await connection.fetchval("SELECT count(*) FROM due_batch")
    assert rows < due.MOST_LOOKED_AT
    async with connection.transaction():
        first = await due.take(connection, 300)
    assert len(first) < 1_000
    other = await asyncpg.connect(database)
    try:
        rest = await due.take(other, 10_000)
    finally:
        await other.close()
    assert len(first.keys() | rest.keys()) == 5_001


async def test_a_page_leaves_pages_for_others(
    connection: asyncpg.Connection, database: str
) -> None:
    """While it is worked on, not only afterwards."""
    await connection.execute(MARKS)
    other = await asyncpg.connect(database)
    try:
        async with connection.transaction():
            first = await due.take(connection, LIMIT)
            second = await due.take(other, LIMIT)
    finally:
        await other.close()
    assert len(second) == LIMIT
    assert not first.keys() & second.keys()


async def test_two_do_not_share_out_what_is_to_be_brought_together(
    connection: asyncpg.Connection, database: str
) -> None:
    """Else each would leave a mark of every member, to be evaluated twice."""
    for _ in range(4):
        await connection.execute(MARKS)
    half = "SELECT FROM due_batch ORDER BY mark_id DESC LIMIT 50 FOR UPDATE"
    others = [await asyncpg.connect(database) for _ in range(2)]
    try:
        held, joining = (other.transaction() for other in others)
        await held.start()
        await others[0].execute(half)
        await joining.start()
        await due.join_batches(others[1])
        await held.rollback()
        assert await asyncio.wait_for(due.join_batches(connection), 5) == 0
        await joining.commit()
        assert await due.join_batches(connection) > 0
    finally:
        for other in others:
            await other.close()
    after = await marks_of(connection)
    assert after == sorted(set(after))


# Two workers, one of which works off a backlog; beside it, a batch of a steady stream.
TWO_WORKERS = """
INSERT INTO stream_offset (topic, partition, next_offset, owner)
SELECT 'attendance', n, 0, ('00000000-0000-0000-0000-00000000000' || n)::uuid
FROM generate_series(1, $1::int) AS n"""
BULK = """
INSERT INTO due_batch (cause, member_ids, is_bulk, marked_at, last_marked_at)
SELECT 'signals', array_agg(member_id), true, now() - $1::interval, now() - $2::interval
FROM member WHERE org_id = 'busy' GROUP BY member_id / 200"""
STEADY = """
INSERT INTO due_batch (cause, member_ids)
SELECT 'signals', array_agg(member_id) FROM member WHERE user_id IN ('profiled', 'late')"""


async def settled(
    connection: asyncpg.Connection, *, first_s: float, last_s: float, workers: int = 2
) -> due.Taken:
    """Whom a worker without a backlog takes, by the ages of the marks of another's."""
    await connection.execute(TWO_WORKERS, workers)
    await connection.execute(BULK, timedelta(seconds=first_s), timedelta(seconds=last_s))
    await connection.execute(STEADY)
    return await due.take(connection, LIMIT, settled=True)


async def test_marks_of_others_backlogs_wait_until_no_more_come(
    connection: asyncpg.Connection,
) -> None:
    """Else their members are evaluated for one batch after the other. Nobody else waits."""
    taken = await settled(connection, first_s=30, last_s=0.2)
    assert len(taken) == 2
    assert taken.held_back
    assert len(await due.take(connection, LIMIT)) >= LIMIT


async def test_but_no_longer(connection: asyncpg.Connection) -> None:
    taken = await settled(connection, first_s=30, last_s=1.2)
    assert len(taken) >= LIMIT
    assert not taken.held_back


async def test_and_not_for_ever(connection: asyncpg.Connection) -> None:
    assert len(await settled(connection, first_s=90, last_s=0.2)) >= LIMIT


async def test_a_worker_alone_has_only_its_own_backlog(connection: asyncpg.Connection) -> None:
    taken = await settled(connection, first_s=0.3, last_s=0.2, workers=1)
    assert len(taken) >= LIMIT


async def test_marks_brought_together_are_as_fresh_as_the_latest(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(TWO_WORKERS, 2)
    for last_s in (20, 10, 0):
        await connection.execute(BULK, timedelta(seconds=30), timedelta(seconds=last_s))
    await connection.execute(MARKS)
    assert await due.join_batches(connection) > 0
    assert await connection.fetchval("SELECT bool_and(is_distinct) FROM due_batch")
    assert len(await due.take(connection, LIMIT, settled=True)) >= LIMIT  # the steady stream's
    rows = await connection.fetch(
        "SELECT sum(cardinality(member_ids)), now() - min(last_marked_at) < '1 s', "
        "now() - max(marked_at) >= '30 s' FROM due_batch WHERE is_bulk"
    )
    assert tuple(rows[0]) == (5_000, True, True)


async def test_the_last_marks_of_a_backlog_are_brought_together(
    connection: asyncpg.Connection,
) -> None:
    """However many there were before: each that is left may be an evaluation."""
    await connection.execute(TWO_WORKERS, 2)
    for _ in range(3):
        await connection.execute(BULK, timedelta(seconds=9), timedelta(seconds=9))
        await connection.execute(BULK.replace("signals", "membership"), *[timedelta(seconds=9)] * 2)
    assert await due.join_batches(connection) > 0
    assert await connection.fetchval("SELECT count(*) FROM due_batch") > due.FEW_BATCHES
    await connection.execute(
        "INSERT INTO due_batch (cause, member_ids, is_bulk) SELECT 'signals', ARRAY[member_id], "
        "true FROM member WHERE org_id = 'busy' ORDER BY member_id LIMIT $1",
        due.FEW_BATCHES,
    )
    assert await due.join_batches(connection, settled=True) == 0  # more will come
    await connection.execute("UPDATE due_batch SET last_marked_at = now() - interval '2 s'")
    assert await due.join_batches(connection) == 0  # the caller's own backlog is not through
    assert await due.join_batches(connection, settled=True) == due.FEW_BATCHES
