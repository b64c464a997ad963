"""Verdicts as seen by those who evaluate: look up, and put what is missing in the queue."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from db.pool import Connection
from service.classifier.judging import StoredVerdict, VerdictStatus
from service.classifier.prompt import PROMPT_VERSION
from service.classifier.situation import Situation, to_json
from service.levels import Level
from service.texts import Texts

# Situations that may wait at once. A longer queue would not be worked off within days.
QUEUE_LIMIT: Final = 20_000

SELECT: Final = """
SELECT v.key, v.status, v.level, v.explanation_id, v.model, x.admin_template, x.user_template
FROM verdict v LEFT JOIN explanation x USING (explanation_id)
WHERE v.key = ANY ($1::bytea[])"""

# Sorted by key, as everything that locks verdicts, so that nobody waits in a circle.
ENQUEUE: Final = """
INSERT INTO verdict (key, situation, rules_level, model, prompt_version)
SELECT w.key, w.situation::jsonb, w.rules_level, $4, $5
FROM unnest($1::bytea[], $2::text[], $3::text[]) AS w (key, situation, rules_level)
ORDER BY w.key
LIMIT greatest(0, $6 - (SELECT count(*) FROM (
    SELECT FROM verdict WHERE model = $4 AND prompt_version = $5 AND status = 'pending' LIMIT $6
) AS pending))
ON CONFLICT (key) DO NOTHING"""

# Whoever settles a verdict waits for this lock, and then sees the members that we write.
LOCK_PENDING: Final = """
SELECT key, status FROM verdict WHERE key = ANY ($1::bytea[]) ORDER BY key FOR SHARE"""

COUNT_MISSING: Final = """
SELECT count(*) FROM unnest($1::bytea[]) AS w (key)
WHERE NOT EXISTS (SELECT FROM verdict v WHERE v.key = w.key)"""

_PENDING: Final = StoredVerdict(VerdictStatus.PENDING)
_REFUSED: Final = StoredVerdict(VerdictStatus.REFUSED)


async def look_up(
    connection: Connection,
    wanted: Mapping[bytes, Situation | None],
    model: str,
    *,
    queue_limit: int = QUEUE_LIMIT,
) -> dict[bytes, StoredVerdict]:
    """What is stored under these keys; those with a situation are put in the queue if missing.

    A key that is absent from the result is not stored and will not be: the queue is full, or no
    situation was given. One statement while everything is answered, four at the most. Idempotent.

    Runs in the caller's transaction (READ COMMITTED), once per transaction, after the members are
    locked: pending verdicts are locked until it ends, so that an answer that arrives meanwhile
    finds the members who wait for it.
    """
    found = await _select(connection, wanted.keys())
    missing = sorted(key for key in wanted if key not in found and wanted[key] is not None)
    if missing:
        await _enqueue(connection, {key: wanted[key] for key in missing}, model, queue_limit)
    open_keys = missing + [key for key, verdict in found.items() if verdict is _PENDING]
    if not open_keys:
        return found
    rows = await connection.fetch(LOCK_PENDING, sorted(open_keys))
    for key in open_keys:
        found.pop(key, None)
    settled = []
    for key, status in rows:
        if status == VerdictStatus.PENDING:
            found[key] = _PENDING
        else:
            settled.append(key)
    return found | (await _select(connection, settled) if settled else {})


async def count_missing(connection: Connection, keys: Collection[bytes]) -> int:
    """How many of these distinct keys would have to be asked for."""
    count: int = await connection.fetchval(COUNT_MISSING, list(keys))
    return count


async def _enqueue(
    connection: Connection,
    missing: Mapping[bytes, Situation | None],
    model: str,
    queue_limit: int,
) -> None:
    situations = {key: s for key, s in missing.items() if s is not None}
    await connection.execute(
        ENQUEUE,
        list(situations),
        [to_json(situation) for situation in situations.values()],
        [situation.level.value for situation in situations.values()],
        model,
        PROMPT_VERSION,
        queue_limit,
    )


async def _select(connection: Connection, keys: Collection[bytes]) -> dict[bytes, StoredVerdict]:
    if not keys:
        return {}
    return {row[0]: _verdict(row) for row in await connection.fetch(SELECT, list(keys))}


def _verdict(row: Any) -> StoredVerdict:
    _, status, level, explanation_id, model, admin, user = row
    if status == VerdictStatus.ANSWERED:
        return StoredVerdict(
            VerdictStatus.ANSWERED, Level(level), Texts(admin, user), explanation_id, model
        )
    return _PENDING if status == VerdictStatus.PENDING else _REFUSED
