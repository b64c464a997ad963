"""Who has to be evaluated: marks, users, slices of organisations, and members whose time has come.

Marks are taken by deleting them, before anything is read: whatever commits later leaves a mark of
its own, so no wake-up is lost. A rollback puts them back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Final, NamedTuple

from db.pool import Connection
from db.wakeups import Wakeup, tell

# Why members are due, by member_id.
Causes = dict[int, set[str]]


class Taken(Causes):
    """Who was taken. `held_back`: there are others, whose marks wait until no more come."""

    held_back = False


# As many as intake puts into one row (db.intake).
MARKS_PER_BATCH: Final = 200
# Fewer rows than this are not worth bringing together, and more are not moved by one statement.
FEW_BATCHES: Final = 40
MOST_BATCHES: Final = 5_000
# Rows of marks that one statement looks at, and so keeps from others for as long as the page takes.
# Some hold a page's members in five rows; a batch of a steady stream marks a few members only.
FIRST_LOOKED_AT: Final = 8
MOST_LOOKED_AT: Final = 100
# Marks, batches of marks, users, slices of organisations, members whose time has come.
KINDS: Final = 5

TAKE_MARKS: Final = """
WITH taken AS (
    DELETE FROM due_member WHERE mark_id = ANY (ARRAY(
        SELECT mark_id FROM due_member ORDER BY mark_id LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING member_id, cause
)
SELECT member_id, array_agg(DISTINCT cause) FROM taken GROUP BY member_id"""

# What there is some of besides batches. By index, since a scan would go over all that was taken
# already: minimums, because EXISTS gives up the order that asks for one.
_OTHER_KINDS: Final = """
SELECT (SELECT min(mark_id) FROM due_member) IS NOT NULL,
       (SELECT min(mark_id) FROM due_user) IS NOT NULL,
       (SELECT min(mark_id) FROM due_organization) IS NOT NULL,
       (SELECT min(wake_at) FROM engagement) <= engagement_now()"""

# Marks of a backlog that somebody else works off: of the members that are marked now, most will be
# marked again in a moment. They wait until no more come, but not for ever. A worker alone has only
# its own backlog.
SETTLED_AFTER: Final = timedelta(seconds=1)
UNSETTLED_FOR_AT_MOST: Final = timedelta(minutes=1)
# In this order, since a steady stream asks for each page: it leaves an empty index.
_SETTLED: Final = """
NOT EXISTS (SELECT FROM due_batch
            WHERE is_bulk AND last_marked_at > engagement_now() - $1::interval)
    OR (SELECT count(DISTINCT owner) FROM stream_offset) < 2"""
_TAKES_BULK: Final = f"""
SELECT NOT $2::boolean OR {_SETTLED}
    OR (SELECT marked_at FROM due_batch WHERE is_bulk ORDER BY mark_id LIMIT 1)
        < engagement_now() - $3::interval"""  # noqa: S608 - made of constants

# As many rows as hold enough members; those that are looked at but left are free again with the
# end of the transaction. What else there is, is told by the same statement, in every row and in one
# without a member where nobody is marked: a steady stream leaves batches of marks alone.
# The commit does not wait for the disk: what a crash takes away, marks and results together, comes
# again. The relay waits, before it publishes anything (db.outbox).
TAKE_BATCHES: Final = f"""
WITH takes AS MATERIALIZED (
    SELECT ({_TAKES_BULK}) AS bulk
), looked_at AS (
    SELECT mark_id, cardinality(member_ids) AS members FROM due_batch
    WHERE is_bulk <= (SELECT bulk FROM takes)
    ORDER BY mark_id LIMIT $5 FOR UPDATE SKIP LOCKED
), taken AS (
    DELETE FROM due_batch WHERE mark_id = ANY (ARRAY(
        SELECT mark_id FROM (
            SELECT mark_id, sum(members) OVER (ORDER BY mark_id) - members AS before FROM looked_at
        ) AS l WHERE before < $4::bigint))
    RETURNING member_ids, cause
), marked AS (
    SELECT member_id, array_agg(DISTINCT cause) AS causes
    FROM taken CROSS JOIN unnest(member_ids) AS m (member_id)
    GROUP BY member_id
)
SELECT m.member_id, m.causes, set_config('synchronous_commit', 'off', true),
       (SELECT count(*) FROM looked_at), (SELECT bulk FROM takes), others.*
FROM ({_OTHER_KINDS}) AS others LEFT JOIN marked m ON true"""  # noqa: S608 - made of constants

ANY_DUE: Final = f"""
SELECT (SELECT min(mark_id) FROM due_batch) IS NOT NULL, others.*
FROM ({_OTHER_KINDS}) AS others"""  # noqa: S608 - made of constants

# One at a time: those who shared the rows among themselves would each keep marks of all members.
# Nobody waits, since whoever has the lock may be frozen.
LOCK_JOINING: Final = "SELECT pg_try_advisory_xact_lock(hashtextextended('join due_batch', 0))"

# Whether bringing marks together is worth it: while a backlog lasts, as many new rows as were
# brought together before, so that a mark is moved a few times at most however long that is.
COUNT_BATCHES: Final = f"""
SELECT count(*) FILTER (WHERE NOT is_distinct), count(*) FILTER (WHERE is_distinct), {_SETTLED}
FROM due_batch"""  # noqa: S608 - made of constants

# One sort of the bare numbers for each of the few kinds of marks: 0.3 s for 630,000 marks of 50,000
# members, instead of 1.8 s where kind and time are sorted with them. So all of a kind are as old as
# the oldest.
JOIN_BATCHES: Final = """
WITH taken AS (
    DELETE FROM due_batch WHERE mark_id = ANY (ARRAY(
        SELECT mark_id FROM due_batch ORDER BY mark_id LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING member_ids, cause, marked_at, last_marked_at, is_bulk
), kinds AS (
    SELECT is_bulk, cause, min(marked_at) AS marked_at, max(last_marked_at) AS last_marked_at
    FROM taken GROUP BY is_bulk, cause
), joined AS (
    INSERT INTO due_batch
        (marked_at, last_marked_at, cause, member_ids, is_bulk, is_distinct)
    SELECT k.marked_at, k.last_marked_at, k.cause, m.member_ids, k.is_bulk, true
    FROM kinds k CROSS JOIN LATERAL (
        SELECT chunk, array_agg(member_id) AS member_ids
        FROM (
            SELECT member_id, (row_number() OVER () - 1) / $2::bigint AS chunk
            FROM (
                SELECT DISTINCT u.member_id
                FROM taken t CROSS JOIN unnest(t.member_ids) AS u (member_id)
                WHERE t.is_bulk = k.is_bulk AND t.cause = k.cause
                ORDER BY u.member_id
            ) AS d
        ) AS numbered
        GROUP BY chunk
    ) AS m
    ORDER BY k.is_bulk, m.chunk
    RETURNING cardinality(member_ids) AS members
)
SELECT (SELECT coalesce(sum(cardinality(member_ids)), 0) FROM taken)
     - (SELECT coalesce(sum(members), 0) FROM joined)"""

TAKE_USERS: Final = """
WITH taken AS (
    DELETE FROM due_user WHERE mark_id = ANY (ARRAY(
        SELECT mark_id FROM due_user ORDER BY mark_id LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING user_id
)
SELECT m.member_id FROM member m WHERE m.user_id = ANY (ARRAY(SELECT user_id FROM taken))"""

LOCK_ORGANIZATION: Final = """
SELECT mark_id, org_id, cause, after_member_id FROM due_organization
ORDER BY mark_id LIMIT 1 FOR UPDATE SKIP LOCKED"""

SLICE_OF_ORGANIZATION: Final = """
SELECT member_id FROM member WHERE org_id = $1 AND member_id > $2 ORDER BY member_id LIMIT $3"""

MOVE_ORGANIZATION: Final = "UPDATE due_organization SET after_member_id = $2 WHERE mark_id = $1"
DROP_ORGANIZATION: Final = "DELETE FROM due_organization WHERE mark_id = $1"

# Members whose organisation is suspended keep no wake_at.
SELECT_BY_CLOCK: Final = """
SELECT member_id FROM engagement WHERE wake_at <= engagement_now()
ORDER BY wake_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED"""

PUT_BACK: Final = """
INSERT INTO due_member (member_id, cause)
SELECT d.member_id, d.cause FROM unnest($1::bigint[], $2::text[]) AS d (member_id, cause)
WHERE EXISTS (SELECT FROM engagement e WHERE e.member_id = d.member_id)"""

SET_ASIDE: Final = """
UPDATE engagement SET wake_at = engagement_now() + $2 WHERE member_id = ANY ($1::bigint[])"""

MARK_ORGANIZATION: Final = "INSERT INTO due_organization (org_id, cause) VALUES ($1, $2)"

MARK_MEMBERS: Final = """
INSERT INTO due_member (member_id, cause) SELECT m, $2 FROM unnest($1::bigint[]) AS d (m)"""

BACKLOG: Final = """
SELECT (SELECT count(*) FROM due_member)
           + (SELECT coalesce(sum(cardinality(member_ids)), 0) FROM due_batch)::bigint,
       coalesce(extract(epoch FROM engagement_now() - least(
           (SELECT min(marked_at) FROM due_member), (SELECT min(marked_at) FROM due_batch)
       )), 0)::float8"""


class Backlog(NamedTuple):
    """Marks that wait, and the age of the oldest in seconds."""

    marks: int
    oldest_age_s: float


async def take(connection: Connection, limit: int, *, settled: bool = False) -> Taken:
    """Up to about `limit` members who are due, with why; the caller's transaction takes them.

    Some of every kind that there is, however much there is of the others; at most twice `limit`.
    No cause means that only time has passed. `settled`: nobody whom another worker's backlog will
    probably mark again in a moment.
    """
    causes = Taken()
    marks, users, slices, clock = await _take_batches(connection, causes, limit, settled)
    if marks and (room := _room(causes, limit)):
        for member_id, why in await connection.fetch(TAKE_MARKS, room):
            causes.setdefault(member_id, set()).update(why)
    if users and (room := _room(causes, limit)):
        for row in await connection.fetch(TAKE_USERS, room):
            causes.setdefault(row[0], set()).add("signals")
    if slices and (room := _room(causes, limit)):
        await _take_slice(connection, causes, room)
    if clock and (room := _room(causes, limit)):
        for row in await connection.fetch(SELECT_BY_CLOCK, room):
            causes.setdefault(row[0], set())
    return causes


async def join_batches(connection: Connection, *, settled: bool = False) -> int:
    """Bring together marks that batches of records made; how many were superfluous.

    `settled`: the caller has no backlog, so that these are the last if nobody else has one.

    Under a backlog a member is marked by one batch after the other, and would be evaluated for
    each: measured, 450,000 evaluations of 50,000 members. Moves marks, takes none: in a transaction
    of its own, so that others see them again at once. Does nothing while somebody else is at it.
    """
    if not await connection.fetchval(LOCK_JOINING):
        return 0
    new, joined, all_settled = (await connection.fetch(COUNT_BATCHES, SETTLED_AFTER))[0]
    if new < FEW_BATCHES or (new < joined and not (settled and all_settled)):
        return 0
    return int(await connection.fetchval(JOIN_BATCHES, MOST_BATCHES, MARKS_PER_BATCH))


def _room(causes: Causes, limit: int) -> int:
    """How many of the next kind to take: what is left of the page, at least that kind's share.

    Without the share, users, organisations and the clock would wait for as long as heavy traffic
    fills page after page.
    """
    return max(limit - len(causes), limit // KINDS)


async def _take_batches(
    connection: Connection, causes: Taken, limit: int, settled: bool
) -> Sequence[bool]:
    """Take batches of marks; of which of the other kinds there is something."""
    # Until there are enough, since rows may name the same members: whoever is given less than a
    # page takes it that nobody else is due.
    most = FIRST_LOOKED_AT
    while True:
        rows = await connection.fetch(
            TAKE_BATCHES, SETTLED_AFTER, settled, UNSETTLED_FOR_AT_MOST, limit - len(causes), most
        )
        for member_id, why, *_ in rows:
            if member_id is not None:
                causes.setdefault(member_id, set()).update(why)
        *_, looked_at, takes_bulk, marks, users, slices, clock = rows[0]
        causes.held_back = not takes_bulk
        if looked_at < most or len(causes) >= limit:
            return marks, users, slices, clock
        most = min(2 * most, MOST_LOOKED_AT)


async def _take_slice(connection: Connection, causes: Causes, limit: int) -> None:
    row = await connection.fetchrow(LOCK_ORGANIZATION)
    if row is None:
        return
    mark_id, org_id, cause, after = row
    members = [r[0] for r in await connection.fetch(SLICE_OF_ORGANIZATION, org_id, after, limit)]
    for member_id in members:
        causes.setdefault(member_id, set()).add(cause)
    if len(members) < limit:
        await connection.execute(DROP_ORGANIZATION, mark_id)
    else:
        await connection.execute(MOVE_ORGANIZATION, mark_id, members[-1])


async def put_back(
    connection: Connection, causes: Mapping[int, Collection[str]], members: Collection[int]
) -> None:
    """Mark members again whom somebody else holds at the moment; the erased are left out."""
    rows = [(m, cause) for m in members for cause in (causes[m] or ("time",))]
    if rows:
        await connection.execute(PUT_BACK, [m for m, _ in rows], [c for _, c in rows])


async def set_aside(connection: Connection, members: Collection[int], delay: timedelta) -> None:
    """Look at members whose marks were taken again after a while; a new mark comes sooner."""
    await connection.execute(SET_ASIDE, list(members), delay)


async def mark_members(connection: Connection, members: Collection[int], cause: str) -> None:
    """Make these members due."""
    await connection.execute(MARK_MEMBERS, list(members), cause)
    await tell(connection, Wakeup.DUE)


async def mark_organization(connection: Connection, org_id: str, cause: str) -> None:
    """Make every member of an organisation due, in slices."""
    await connection.execute(MARK_ORGANIZATION, org_id, cause)
    await tell(connection, Wakeup.DUE)


async def backlog(connection: Connection) -> Backlog:
    """How much waits, for metrics."""
    rows = await connection.fetch(BACKLOG)
    return Backlog(*rows[0])


async def any_due(connection: Connection) -> bool:
    """Whether anybody is due now."""
    return any((await connection.fetch(ANY_DUE))[0])
