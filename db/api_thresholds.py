"""Thresholds as administrators see them: the version in force, and those before."""

from __future__ import annotations

from typing import Final

import asyncpg

from db.pool import Connection
from service.api.values import ThresholdsVersion
from service.thresholds import DEFAULT_THRESHOLDS, Thresholds

SELECT_VERSIONS: Final = """
SELECT t.*, f.display_name AS author_name FROM thresholds t
LEFT JOIN member m ON m.org_id = t.org_id AND m.user_id = t.author
LEFT JOIN membership_fact f ON f.member_id = m.member_id
WHERE t.org_id = $1 ORDER BY t.version DESC LIMIT $2"""

DEFAULTS: Final = ThresholdsVersion(DEFAULT_THRESHOLDS, None, None, "", None)


async def read_versions(connection: Connection, org_id: str, limit: int) -> list[ThresholdsVersion]:
    """See `OrganizationReads.threshold_versions`."""
    rows = await connection.fetch(SELECT_VERSIONS, org_id, limit)
    versions = [_version(row) for row in rows]
    if len(versions) < limit:
        versions.append(DEFAULTS)
    return versions


def _version(row: asyncpg.Record) -> ThresholdsVersion:
    thresholds = Thresholds(
        row["highly_engaged_min_events"],
        row["moderate_min_events"],
        row["activity_window_days"],
        row["new_member_days"],
        row["inactive_after_days"],
        row["version"],
    )
    return ThresholdsVersion(
        thresholds, row["author"], row["author_name"], row["note"], row["created_at"]
    )
