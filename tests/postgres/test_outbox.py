"""Pages of the outbox: in order, each row until Kafka has it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from db import outbox
from db.outbox import NOTHING_SENT
from db.pool import open_pool
from service.settings import load_settings
from streams import relay as relay_module
from streams.relay import Page, Relay

FILL = """
INSERT INTO outbox (member_id, revision, message_key, level_body)
SELECT 1, n, 'club:member', '{}' FROM generate_series(1, 5) AS n"""
HELD = "SELECT array_agg(revision ORDER BY outbox_id) FROM outbox"


async def test_what_was_sent_goes_when_the_next_page_is_read(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(FILL)
        first = await outbox.next_page(connection, NOTHING_SENT, 2)
        assert [row.revision for row in first] == [1, 2]
        sent = outbox.sent_of(first)
        # Nothing was acknowledged yet: whoever relays next sends them again.
        assert [row.revision for row in await outbox.next_page(connection, NOTHING_SENT, 2)] == [
            1,
            2,
        ]

        second = await outbox.next_page(connection, sent, 2)
        assert [row.revision for row in second] == [3, 4]
        assert await connection.fetchval(HELD) == [3, 4, 5]
        # The answer was lost, so it is asked again.
        assert await outbox.next_page(connection, sent, 2) == second

        await outbox.delete_sent(connection, outbox.sent_of(second))
        assert await connection.fetchval(HELD) == [5]
        await outbox.delete_sent(connection, NOTHING_SENT)
        assert [row.revision for row in await outbox.next_page(connection, NOTHING_SENT, 2)] == [5]
    finally:
        await connection.close()


async def test_rows_that_got_the_numbers_of_sent_ones_are_sent(database: str) -> None:
    """A standby that lacks the latest rows stands in for a server: it gives their numbers anew."""
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(FILL)
        sent = outbox.sent_of(await outbox.next_page(connection, NOTHING_SENT, 3))
        await connection.execute("TRUNCATE outbox RESTART IDENTITY")
        await connection.execute(FILL)
        page = await outbox.next_page(connection, sent, 10)
        assert [row.revision for row in page] == [1, 2, 3, 4, 5]
        await outbox.delete_sent(connection, sent)
        assert await connection.fetchval(HELD) == [1, 2, 3, 4, 5]
    finally:
        await connection.close()


async def test_what_was_read_is_on_the_disk(database: str) -> None:
    """Evaluations commit without waiting for it; nothing is published that a crash could undo."""
    evaluator = await asyncpg.connect(database, server_settings={"synchronous_commit": "off"})
    relay = await asyncpg.connect(database)
    try:
        await outbox.next_page(relay, NOTHING_SENT, 1)  # so that it is prepared
        # More than once: PostgreSQL itself writes every now and then.
        for _ in range(20):
            await evaluator.execute(FILL)
            written = await evaluator.fetchval("SELECT pg_current_wal_insert_lsn()")
            rows = await outbox.next_page(relay, NOTHING_SENT, 100)
            flushed = await evaluator.fetchval("SELECT pg_current_wal_flush_lsn() >= $1", written)
            assert rows
            assert flushed
    finally:
        await evaluator.close()
        await relay.close()


async def test_a_relay_starts_its_producer_anew_once_a_day(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brokers forget a fence id after a week. Nothing is lost or sent twice for it."""
    settings = load_settings({"DATABASE_URL": database})
    pool = await open_pool(settings, purpose="test", size=2)
    connection = await asyncpg.connect(database)
    starts: list[int] = []
    sent: list[int] = []

    async def start(*_: object) -> Any:
        starts.append(len(sent))
        return SimpleNamespace()

    class Sending(Relay):
        async def _send(self, page: Page) -> int:
            sent.extend(row.revision for row in page.rows)
            return len(page.rows)

    async def cut_off(_: object) -> None:
        pass

    monkeypatch.setattr(relay_module, "start_fenced", start)
    monkeypatch.setattr(relay_module, "cut_off", cut_off)
    relay = Sending(pool, settings, uuid4())
    for age_s in (86_400.0, 86_400.0, -1.0, -1.0, 86_400.0):
        monkeypatch.setattr(relay_module, "MAX_PRODUCER_AGE_S", age_s)
        await connection.execute(FILL)
        assert await relay.step() == 5
    assert starts == [0, 10, 15]
    assert sent == [1, 2, 3, 4, 5] * 5
    assert await relay.step() == 0
    assert await connection.fetchval(HELD) is None
    await connection.close()
    await pool.close()
