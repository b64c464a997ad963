"""Forget members of organisations, but for keyed hashes that keep late records out.

The database's function `erase_member` does the forgetting: it alone may take a person out of the
append-only histories. Before it runs, the shown level is closed here, with its change and the
tombstone for the level topic, since those are made where all others are made.

Erasing and applying records exclude each other (`hold`, `MemberIds.begin`), so no fact is written
for a member who has just gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from db import evaluation, offsets
from db.evaluating import Opinion, decide
from db.evaluation import CaseReader, MemberCase
from db.explanations import ExplanationCache
from db.pool import Connection
from db.results import Result, write_publications
from service.erasing import Erased, receipt_of
from service.errors import NotFound
from service.evaluation import evaluate
from service.expiry import close_ended
from service.records import Cause

HOLD: Final = "SELECT pg_advisory_xact_lock(erasure_lock())"

HOLD_SHARED: Final = "SELECT pg_advisory_xact_lock_shared(erasure_lock())"
IS_KNOWN: Final = """
SELECT EXISTS (SELECT FROM member WHERE org_id = $1 AND user_id = $2)"""

# Whoever was erased at this instant, or later, has nothing left from before it. In one order, so
# that two who erase the same members wait for each other instead of locking each other out.
LOCK_MEMBERS: Final = """
SELECT e.member_id, e.org_id
FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS w (org_id, user_id, erased_at)
JOIN member m ON m.org_id = w.org_id AND m.user_id = w.user_id
JOIN engagement e ON e.member_id = m.member_id
WHERE m.accept_after IS NULL OR m.accept_after < w.erased_at
ORDER BY e.member_id FOR NO KEY UPDATE OF e"""

ERASE: Final = """
SELECT w.org_id, w.user_id, e.was_known, e.removed::text
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[])
    AS w (org_id, user_id, erased_at, revision)
CROSS JOIN LATERAL erase_member(w.org_id, w.user_id, w.erased_at, w.revision, $5) AS e"""

ERASE_NOW: Final = "SELECT was_known, removed::text FROM erase_member_now($1, $2, $3, $4)"
ERASE_HERE: Final = "SELECT was_known, removed::text FROM erase_member_here($1, $2, $3)"


class Subject(NamedTuple):
    """Whom to forget, and up to which instant what was recorded goes."""

    org_id: str
    user_id: str
    erased_at: datetime


async def hold(connection: Connection) -> None:
    """Keep everybody who writes facts out; before anything of the transaction reads a member."""
    await connection.execute(HOLD)


async def keep_author(connection: Connection, org_id: str, user_id: str) -> None:
    """Keep erasures out while a member acts, whose name goes where only an erasure takes it from.

    First in what the member does in the caller's transaction. Raises NotFound for who was erased
    since being let in.
    """
    await connection.execute(HOLD_SHARED)
    if not await connection.fetchval(IS_KNOWN, org_id, user_id):
        raise NotFound("no such member")


async def erase(connection: Connection, org_id: str, user_id: str, memory: timedelta) -> Erased:
    """Erase one member in the caller's transaction, now, with all that is known. Idempotent.

    Also what was recorded after the database's time: a producer's clock may be fast.
    """
    return await _erase_now(connection, org_id, user_id, ERASE_NOW, (org_id, user_id), memory)


async def erase_here(
    connection: Connection, org_id: str, user_id: str, memory: timedelta
) -> Erased:
    """`erase` for the API: a member of the organisation that the transaction was let into."""
    return await _erase_now(connection, org_id, user_id, ERASE_HERE, (user_id,), memory)


async def _erase_now(
    connection: Connection,
    org_id: str,
    user_id: str,
    statement: str,
    ids: tuple[str, ...],
    memory: timedelta,
) -> Erased:
    await hold(connection)
    erased_at = await offsets.read_now(connection)
    locked = await connection.fetch(LOCK_MEMBERS, [org_id], [user_id], [erased_at])
    revisions = await _close(connection, {row[0]: row[1] for row in locked})
    row = await connection.fetchrow(statement, *ids, revisions.get((org_id, user_id), 0), memory)
    assert row is not None
    return _erased(Subject(org_id, user_id, erased_at), row[0], row[1], revisions)


async def erase_all(
    connection: Connection, subjects: Sequence[Subject], memory: timedelta
) -> list[Erased]:
    """Erase members in the caller's transaction; what was done, one per (organisation, user).

    Facts recorded up to `erased_at` go, whether they arrived before or arrive afterwards, for as
    long as `memory` lasts. Facts recorded later stay and begin anew. Idempotent. Waits for
    transactions that write facts; rows change only for who is known.
    """
    await hold(connection)
    latest: dict[tuple[str, str], Subject] = {}
    for subject in sorted(subjects, key=lambda s: s.erased_at):
        latest[subject[:2]] = subject
    wanted = [latest[key] for key in sorted(latest)]
    org_ids, user_ids, instants = ([s[i] for s in wanted] for i in range(3))
    locked = await connection.fetch(LOCK_MEMBERS, org_ids, user_ids, instants)
    revisions = await _close(connection, {row[0]: row[1] for row in locked})
    rows = await connection.fetch(
        ERASE, org_ids, user_ids, instants, [revisions.get(s[:2], 0) for s in wanted], memory
    )
    return [
        _erased(latest[org_id, user_id], was_known, removed, revisions)
        for org_id, user_id, was_known, removed in rows
    ]


async def _close(connection: Connection, members: dict[int, str]) -> dict[tuple[str, str], int]:
    """End the shown level and override of locked members; (org_id, user_id) -> revision."""
    if not members:
        return {}
    now = await offsets.read_now(connection)
    organizations = await evaluation.read_organizations(connection, set(members.values()))
    # Nobody is scored here, so it makes no difference whether implicit members count.
    reader = CaseReader(ExplanationCache(), implicit_membership=True)
    cases = await reader.read(connection, members, organizations, now)
    results = [_closed(case, now) for case in cases]
    await write_publications(connection, results, now)
    return {r.member.subject[:2]: r.outcome.standing.revision for r in results}


def _closed(member: MemberCase, now: datetime) -> Result:
    at = max(now, member.standing.computed_at or now)
    closed = close_ended(member.standing, member.case, at)
    # Like one who has left: the override ends too.
    member = member._replace(case=member.case._replace(eligible=False))
    evaluated = evaluate(member.case, at)
    return decide(member, closed, evaluated, Opinion(None), (Cause.MEMBERSHIP,), now)


def _erased(
    subject: Subject, was_known: bool, counts: str, revisions: Mapping[tuple[str, str], int]
) -> Erased:
    # With a revision something was published; what was closed ends in a tombstone.
    has_tombstone = revisions.get(subject[:2], 0) > 0
    return Erased(was_known, receipt_of(*subject, json.loads(counts), has_tombstone=has_tombstone))
