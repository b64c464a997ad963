"""The table of the hand-written peers, and how records get into it. No packages beyond asyncpg.

They keep the newest record per member and community event, as the service does, but in one wide
table with text keys, without due marks, offsets or dead letters.
"""

from collections.abc import Iterable, Sequence
from typing import Any

CREATE = """
CREATE TABLE IF NOT EXISTS attendance (
    id text NOT NULL,
    org_id text COLLATE "C",
    user_id text COLLATE "C",
    event_id text COLLATE "C",
    status text NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, user_id, event_id)
)"""

_NEWER = """
ON CONFLICT (org_id, user_id, event_id) DO UPDATE
SET id = excluded.id, status = excluded.status, occurred_at = excluded.occurred_at,
    recorded_at = excluded.recorded_at
WHERE (a.recorded_at, a.id) < (excluded.recorded_at, excluded.id)"""

UPSERT_ONE = "INSERT INTO attendance AS a VALUES ($1, $2, $3, $4, $5, $6, $7)" + _NEWER

UPSERT_MANY = (
    """INSERT INTO attendance AS a
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[],
                     $6::timestamptz[], $7::timestamptz[])"""
    + _NEWER
)

Row = tuple[Any, ...]


def columns(rows: Iterable[Row]) -> Sequence[Sequence[Any]]:
    """Arguments for UPSERT_MANY: the newest row per key, sorted by key, as columns."""
    newest: dict[Any, Row] = {}
    for row in rows:
        key = row[1:4]
        other = newest.setdefault(key, row)
        if other is not row and (row[6], row[0]) > (other[6], other[0]):
            newest[key] = row
    return list(zip(*[newest[key] for key in sorted(newest)], strict=True))
