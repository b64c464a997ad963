"""The queue of situations that nobody has answered yet.

Any worker may claim; a claim is a lease that runs out after a crash. Each call is reserved in the
budgets with its claim and settled with its outcome, so a crash costs one call at the most, and that
is counted. Leases run on the real clock of the database, since they are about processes.

Every function runs in the caller's transaction. A claim is known by the number of its attempt: what
is repeated because nobody knows whether a commit happened, changes nothing the second time.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from db.claude_usage import Limits, Reservation, Spent, count_fallback, lock_room, reserve, settle
from db.pool import Connection
from service.classifier.asking import Usage
from service.classifier.prompt import PROMPT_VERSION
from service.classifier.situation import Situation, from_json
from service.levels import Level
from service.records import Cause

LEASE: Final = timedelta(seconds=120)

COUNT_LEASED: Final = "SELECT count(*) FROM verdict WHERE leased_until > clock_timestamp()"

ANY_DUE: Final = """
SELECT EXISTS (
    SELECT FROM verdict
    WHERE model = $1 AND prompt_version = $2 AND status = 'pending'
      AND due_at <= clock_timestamp()
      AND (leased_until IS NULL OR leased_until <= clock_timestamp()))"""

CLAIM: Final = """
UPDATE verdict v SET leased_until = clock_timestamp() + $4, attempts = v.attempts + 1
FROM (
    SELECT key FROM verdict
    WHERE model = $1 AND prompt_version = $2 AND status = 'pending'
      AND due_at <= clock_timestamp()
      AND (leased_until IS NULL OR leased_until <= clock_timestamp())
    ORDER BY due_at LIMIT $3
    FOR NO KEY UPDATE SKIP LOCKED
) AS c
WHERE v.key = c.key
RETURNING v.key, v.situation::text, v.attempts, v.failures, v.fault"""

# Whoever answers first answers for all; the number of the attempt tells whose call it was.
ANSWER: Final = """
UPDATE verdict SET
    status = 'answered', level = $2, explanation_id = $3, settled_at = engagement_now(),
    leased_until = NULL, fault = NULL, failures = 0
WHERE key = $1 AND status = 'pending'
RETURNING attempts"""

REFUSE: Final = """
UPDATE verdict SET
    status = 'refused', settled_at = engagement_now(), leased_until = NULL, fault = $3
WHERE key = $1 AND status = 'pending' AND attempts = $2
RETURNING attempts"""

# A statement of its own, so that it sees whoever has waited for the lock on the verdict.
MARK_WAITING: Final = """
INSERT INTO due_member (member_id, cause)
SELECT member_id, $2 FROM engagement WHERE verdict_key = $1"""

ASK_AGAIN: Final = """
UPDATE verdict SET
    attempts = attempts + 1, fault = $3, failures = 0, leased_until = clock_timestamp() + $4
WHERE key = $1 AND status = 'pending' AND attempts = $2 AND leased_until IS NOT NULL
RETURNING attempts"""

SELECT_ATTEMPT: Final = "SELECT attempts FROM verdict WHERE key = $1 AND fault = $2"

RELEASE: Final = """
UPDATE verdict SET
    leased_until = NULL, due_at = clock_timestamp() + $3,
    failures = CASE WHEN $4::text IS NULL THEN failures ELSE failures + 1 END,
    last_failure = coalesce($4, last_failure), fault = coalesce($5, fault)
WHERE key = $1 AND status = 'pending' AND attempts = $2 AND leased_until IS NOT NULL
RETURNING attempts"""

ADD_COST: Final = """
UPDATE verdict SET input_tokens = input_tokens + $2, output_tokens = output_tokens + $3,
    cost_usd = cost_usd + $4
WHERE key = $1"""

COUNT_WAITING: Final = """
SELECT count(*) FROM verdict WHERE model = $1 AND prompt_version = $2 AND status = 'pending'"""

DROP_SUPERSEDED: Final = """
DELETE FROM verdict v
WHERE (v.model <> $1 OR v.prompt_version <> $2) AND v.requested_at < engagement_now() - $3::interval
  AND NOT EXISTS (SELECT FROM engagement e WHERE e.verdict_key = v.key)"""

_NOTHING: Final = Spent(Usage(0, 0), Decimal(0))


class Claim(NamedTuple):
    """One situation to ask about, leased to us, with what is reserved for this call.

    `fault`: why the guard refused an earlier answer; then this call is the second and last one.
    """

    key: bytes
    situation: Situation
    attempt: int
    failures: int
    fault: str | None
    reservation: Reservation


class Claims(NamedTuple):
    """What may be asked now. `blocked`: the budget that keeps the rest waiting, if one does."""

    claims: list[Claim]
    blocked: str | None


async def claim(
    connection: Connection,
    model: str,
    limits: Limits,
    *,
    wanted: int,
    tokens: int,
    lease: timedelta = LEASE,
) -> Claims:
    """Lease up to `wanted` due situations and reserve one call of `tokens` for each.

    Commit before asking. Nothing is claimed beyond the limits, over all workers.
    """
    if not await connection.fetchval(ANY_DUE, model, PROMPT_VERSION):
        return Claims([], None)
    room = await lock_room(connection, limits, tokens)
    free = min(wanted, limits.concurrency - await connection.fetchval(COUNT_LEASED))
    blocked = room.limited_by if room.calls < free else None
    if min(free, room.calls) <= 0:
        return Claims([], blocked)
    rows = await connection.fetch(CLAIM, model, PROMPT_VERSION, min(free, room.calls), lease)
    await reserve(connection, room.day, len(rows), len(rows) * tokens)
    reservation = Reservation(room.day, tokens)
    claims = [
        Claim(key, from_json(situation), attempt, failures, fault, reservation)
        for key, situation, attempt, failures, fault in rows
    ]
    return Claims(claims, blocked if len(rows) == room.calls else None)


async def answer(
    connection: Connection, done: Claim, level: Level, explanation_id: int, spent: Spent
) -> None:
    """Store a verdict and mark everybody who waits for it."""
    attempt = await connection.fetchval(ANSWER, done.key, level.value, explanation_id)
    if attempt is None:
        return
    await connection.execute(MARK_WAITING, done.key, Cause.CLASSIFIER.value)
    if attempt == done.attempt:
        await _add_cost(connection, done.key, spent)
        agreed = level is done.situation.level
        await settle(
            connection, done.reservation, spent, agreed=int(agreed), differed=int(not agreed)
        )


async def refuse(connection: Connection, done: Claim, fault: str, spent: Spent) -> None:
    """Leave the situation to the rules for good, and mark everybody who waits for it."""
    if await connection.fetchval(REFUSE, done.key, done.attempt, fault) is None:
        return
    await connection.execute(MARK_WAITING, done.key, Cause.CLASSIFIER.value)
    await count_fallback(connection, fault)
    await _add_cost(connection, done.key, spent)
    await settle(connection, done.reservation, spent)


async def ask_again(
    connection: Connection,
    done: Claim,
    fault: str,
    spent: Spent,
    limits: Limits,
    lease: timedelta = LEASE,
) -> Claim | None:
    """Settle the first answer, which was refused, and reserve the one repetition.

    None when the budget does not allow it today (the situation waits, the fault is remembered), or
    when somebody else has taken it over.
    """
    room = await lock_room(connection, limits, done.reservation.tokens)
    again = done._replace(
        attempt=done.attempt + 1,
        failures=0,
        fault=fault,
        reservation=Reservation(room.day, done.reservation.tokens),
    )
    if room.calls == 0:
        released = await connection.fetchval(
            RELEASE, done.key, done.attempt, timedelta(0), None, fault
        )
        if released is not None:
            await _add_cost(connection, done.key, spent)
            await settle(connection, done.reservation, spent)
        return None
    if await connection.fetchval(ASK_AGAIN, done.key, done.attempt, fault, lease) is not None:
        await _add_cost(connection, done.key, spent)
        await settle(connection, done.reservation, spent)
        await reserve(connection, room.day, 1, again.reservation.tokens)
        return again
    # A repeat of this very step, whose first commit did happen, finds its own mark.
    attempt = await connection.fetchval(SELECT_ATTEMPT, done.key, fault)
    return again if attempt == again.attempt else None


async def postpone(
    connection: Connection, done: Claim, failure: str, wait: timedelta, *, maybe_billed: bool
) -> None:
    """No answer came: try again after `wait`. What may have been billed stays reserved."""
    released = await connection.fetchval(RELEASE, done.key, done.attempt, wait, failure, None)
    if released is None:
        return
    await count_fallback(connection, failure)
    if not maybe_billed:
        await settle(connection, done.reservation, _NOTHING)


async def count_waiting(connection: Connection, model: str) -> int:
    """How many situations wait for an answer, for metrics."""
    waiting: int = await connection.fetchval(COUNT_WAITING, model, PROMPT_VERSION)
    return waiting


async def drop_superseded(connection: Connection, model: str, older_than: timedelta) -> int:
    """Forget verdicts of other models and prompts that nobody refers to; how many."""
    status: str = await connection.execute(DROP_SUPERSEDED, model, PROMPT_VERSION, older_than)
    return int(status.rpartition(" ")[2])


async def _add_cost(connection: Connection, key: bytes, spent: Spent) -> None:
    usage, cost_usd = spent
    await connection.execute(ADD_COST, key, usage.input_tokens, usage.output_tokens, cost_usd)
