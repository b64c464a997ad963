"""Records that can never be applied: one row per (topic, partition, offset)."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from db.pool import Connection


class DeadLetterRow(NamedTuple):
    """One dead letter as it arrived; `org_id` and `user_id` where they could be made out."""

    topic: str
    partition: int
    offset: int
    code: str
    message: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    org_id: str | None = None
    user_id: str | None = None
    failed_at: datetime | None = None


# A row that is there already is of an earlier topic of this name, which was made anew since.
INSERT: Final = """
INSERT INTO dead_letter AS d
    (topic, partition, "offset", code, message, key, value, headers, org_id, user_id)
SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[], $4::text[], $5::text[], $6::bytea[],
                     $7::bytea[], $8::jsonb[], $9::text[], $10::text[])
ON CONFLICT (topic, partition, "offset") DO UPDATE
SET code = excluded.code, message = excluded.message, key = excluded.key, value = excluded.value,
    headers = excluded.headers, org_id = excluded.org_id, user_id = excluded.user_id,
    failed_at = excluded.failed_at, published_at = NULL, replayed_at = NULL, erased_at = NULL
WHERE (d.key, d.value, d.headers) IS DISTINCT FROM
      (excluded.key, excluded.value, excluded.headers)"""

SELECT_UNPUBLISHED: Final = """
SELECT topic, partition, "offset", code, message, key, value, headers, org_id, user_id, failed_at
FROM dead_letter WHERE published_at IS NULL ORDER BY failed_at LIMIT $1"""

MARK_PUBLISHED: Final = """
UPDATE dead_letter d SET published_at = engagement_now()
FROM unnest($1::text[], $2::int[], $3::bigint[]) AS p (topic, partition, "offset")
WHERE (d.topic, d.partition, d."offset") = (p.topic, p.partition, p."offset")"""


async def insert(connection: Connection, rows: Sequence[DeadLetterRow]) -> None:
    """Keep dead letters, in the transaction that moves the offset past them. Idempotent."""
    if rows:
        await connection.execute(
            INSERT,
            [r.topic for r in rows],
            [r.partition for r in rows],
            [r.offset for r in rows],
            [r.code for r in rows],
            [r.message for r in rows],
            [r.key for r in rows],
            [r.value for r in rows],
            [_encode_headers(r.headers) for r in rows],
            [r.org_id for r in rows],
            [r.user_id for r in rows],
        )


async def unpublished(connection: Connection, limit: int) -> list[DeadLetterRow]:
    """The oldest dead letters that are not on their topic yet."""
    return [_row(row) for row in await connection.fetch(SELECT_UNPUBLISHED, limit)]


async def mark_published(connection: Connection, rows: Sequence[DeadLetterRow]) -> None:
    """Remember that these are on their topic. Idempotent."""
    await connection.execute(
        MARK_PUBLISHED,
        [r.topic for r in rows],
        [r.partition for r in rows],
        [r.offset for r in rows],
    )


def _row(row: Any) -> DeadLetterRow:
    topic, partition, offset, code, message, key, value, headers, *rest = row
    return DeadLetterRow(
        topic, partition, offset, code, message, key, value, decode_headers(headers), *rest
    )


def _encode_headers(headers: Sequence[tuple[str, bytes | None]]) -> str:
    return json.dumps([[_name(n), None if v is None else _base64(v)] for n, v in headers])


def decode_headers(text: str) -> list[tuple[str, bytes | None]]:
    """Headers as stored: a JSON list of [name, base64 value or null].

    A name that JSON in the database cannot hold stands there as [base64 name].
    """
    return [
        (
            n if isinstance(n, str) else base64.b64decode(n[0]).decode(),
            None if v is None else base64.b64decode(v),
        )
        for n, v in json.loads(text)
    ]


def _name(name: str) -> str | list[str]:
    return [_base64(name.encode())] if "\0" in name else name


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
