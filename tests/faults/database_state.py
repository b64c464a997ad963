"""All that the verifier looks at in the database, read in one snapshot."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

import asyncpg

from tests.faults.audit import SELECT_AUDIT
from tests.faults.kafka_log import Place
from tests.oracle import KINDS

VIEWS: Final = {
    "attendance": "attendance",
    "rsvp": "rsvp",
    "profile-update": "profile",
    "membership": "membership",
    "organization": "organization",
}
LEFTOVERS: Final = {
    "due_member": "SELECT count(*) FROM due_member",
    "due_batch": "SELECT count(*) FROM due_batch",
    "due_user": "SELECT count(*) FROM due_user",
    "due_organization": "SELECT count(*) FROM due_organization",
    "outbox": "SELECT count(*) FROM outbox",
    "dead_letter, not published": "SELECT count(*) FROM dead_letter WHERE published_at IS NULL",
    # Somebody's time may come while we look.
    "engagement, late": "SELECT count(*) FROM engagement "
    "WHERE wake_at < engagement_now() - interval '10 s'",
}

Row = dict[str, Any]


class State(NamedTuple):
    """Rows by what identifies them."""

    now: datetime
    facts: dict[str, list[Row]]
    members: dict[tuple[str, str], Row]
    signals: dict[tuple[str, str], Row]
    history: list[Row]
    overrides: list[Row]
    offsets: dict[tuple[str, int], Row]
    dead_letters: dict[Place, Row]
    incidents: list[Row]
    audit: list[Row]
    leftovers: dict[str, int]


async def read_state(database_url: str) -> State:
    """One snapshot of a migrated database on which the audit is installed."""
    connection = await asyncpg.connect(database_url, timeout=10, command_timeout=120)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return await _read(connection)
    finally:
        await connection.close(timeout=10)


async def _read(connection: Any) -> State:
    async def rows(query: str) -> list[Row]:
        return [dict(row) for row in await connection.fetch(query)]

    members = await rows("SELECT * FROM member_engagement")
    signals = await rows("SELECT * FROM member_signals")
    offsets = await rows("SELECT * FROM stream_offset")
    dead_letters = await rows("SELECT * FROM dead_letter")
    return State(
        now=await connection.fetchval("SELECT engagement_now()"),
        facts={kind: await rows(f"SELECT * FROM {VIEWS[kind]}") for kind in KINDS},
        members={(row["org_id"], row["user_id"]): row for row in members},
        signals={(row["org_id"], row["user_id"]): row for row in signals},
        history=await rows("SELECT * FROM engagement_level_history"),
        overrides=await rows(
            "SELECT * FROM engagement_override_history ORDER BY override_history_id"
        ),
        offsets={(row["topic"], row["partition"]): row for row in offsets},
        dead_letters={(row["topic"], row["partition"], row["offset"]): row for row in dead_letters},
        incidents=await rows("SELECT * FROM incident ORDER BY incident_id"),
        audit=await rows(SELECT_AUDIT),
        leftovers={name: await connection.fetchval(query) for name, query in LEFTOVERS.items()},
    )
