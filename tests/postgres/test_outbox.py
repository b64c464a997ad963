"""Pages of the outbox: in order, each row until Kafka has it."""

from __future__ import annotations

import asyncpg

from db import outbox

FILL = """
INSERT INTO outbox (member_id, revision, message_key, level_body)
SELECT 1, n, 'club:member', '{}' FROM generate_series(1, 5) AS n"""
HELD = "SELECT array_agg(revision ORDER BY outbox_id) FROM outbox"


async def test_what_was_sent_goes_when_the_next_page_is_read(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(FILL)
        first = await outbox.next_page(connection, [], 2)
        assert [row.revision for row in first] == [1, 2]
        sent = [row.outbox_id for row in first]
        # Nothing was acknowledged yet: whoever relays next sends them again.
        assert [row.revision for row in await outbox.next_page(connection, [], 2)] == [1, 2]

        second = await outbox.next_page(connection, sent, 2)
        assert [row.revision for row in second] == [3, 4]
        assert await connection.fetchval(HELD) == [3, 4, 5]
        # The answer was lost, so it is asked again.
        assert await outbox.next_page(connection, sent, 2) == second

        await outbox.delete_sent(connection, [row.outbox_id for row in second])
        assert await connection.fetchval(HELD) == [5]
        await outbox.delete_sent(connection, [])
        assert [row.revision for row in await outbox.next_page(connection, [], 2)] == [5]
    finally:
        await connection.close()


async def test_what_was_read_is_on_the_disk(database: str) -> None:
    """Evaluations commit without waiting for it; nothing is published that a crash could undo."""
    evaluator = await asyncpg.connect(database, server_settings={"synchronous_commit": "off"})
    relay = await asyncpg.connect(database)
    try:
        await outbox.next_page(relay, [], 1)  # so that it is prepared
        # More than once: PostgreSQL itself writes every now and then.
        for _ in range(20):
            await evaluator.execute(FILL)
            written = await evaluator.fetchval("SELECT pg_current_wal_insert_lsn()")
            rows = await outbox.next_page(relay, [], 100)
            flushed = await evaluator.fetchval("SELECT pg_current_wal_flush_lsn() >= $1", written)
            assert rows
            assert flushed
    finally:
        await evaluator.close()
        await relay.close()
