"""Versions of an organisation's thresholds: read the one in force, save the next."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from db import due, evaluation
from db.pool import Connection
from service.errors import Conflict, InvalidInput, Stale
from service.records import Cause
from service.thresholds import DEFAULT_THRESHOLDS, Thresholds, check

MAX_NOTE: Final = 2_000

# One who saves at a time, per organisation; a statement of its own, so that the next one sees what
# was saved meanwhile.
LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('thresholds ' || $1, 0))"

INSERT: Final = """
INSERT INTO thresholds
    (org_id, version, highly_engaged_min_events, moderate_min_events, activity_window_days,
     new_member_days, inactive_after_days, author, note, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, engagement_now())"""

SELECT_VERSIONS: Final = """
SELECT highly_engaged_min_events, moderate_min_events, activity_window_days, new_member_days,
       inactive_after_days, version, author, note, created_at
FROM thresholds WHERE org_id = $1 ORDER BY version DESC LIMIT $2"""


class Version(NamedTuple):
    """One immutable version; version 0, the defaults, has neither author nor time."""

    thresholds: Thresholds
    author: str | None
    note: str
    created_at: datetime | None


async def in_force(connection: Connection, org_id: str) -> Thresholds:
    """The newest version, or the defaults."""
    return (await evaluation.read_organizations(connection, {org_id}))[org_id].thresholds


async def versions(connection: Connection, org_id: str, limit: int) -> Sequence[Version]:
    """Newest first; the defaults come last, as version 0."""
    rows = await connection.fetch(SELECT_VERSIONS, org_id, limit)
    found = [Version(Thresholds(*row[:6]), row[6], row[7], row[8]) for row in rows]
    if len(found) < limit:
        found.append(Version(DEFAULT_THRESHOLDS, None, "", None))
    return found


async def save(
    connection: Connection,
    org_id: str,
    thresholds: Thresholds,
    *,
    base_version: int | None,
    author: str,
    note: str,
    again: bool = False,
) -> Thresholds:
    """Store the next version and mark the organisation's members due, in the caller's transaction.

    `base_version` None: whatever is in force. Raises InvalidThresholds, InvalidInput (the note),
    Stale, Conflict (these numbers are in force, unless `again`: a version is in every record, so
    a new one publishes everything anew).
    """
    check(thresholds)
    if len(note) > MAX_NOTE or "\0" in note:
        raise InvalidInput(f"a note may have {MAX_NOTE} characters at the most, and no NUL")
    await connection.execute(LOCK, org_id)
    current = await in_force(connection, org_id)
    if base_version is not None and base_version != current.version:
        raise Stale(f"version {current.version} is in force, not {base_version}: look again")
    saved = thresholds._replace(version=current.version + 1)
    if saved.numbers == current.numbers and not again:
        raise Conflict(f"these numbers are in force already, as version {current.version}")
    await connection.execute(INSERT, org_id, saved.version, *saved.numbers, author, note)
    await due.mark_organization(connection, org_id, Cause.THRESHOLDS)
    return saved
