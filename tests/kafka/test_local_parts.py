"""The local servers: they work, keep their data, and leave nothing behind."""

from __future__ import annotations

import asyncpg

from tests.servers import KafkaBroker


async def test_database_is_migrated(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        assert await connection.fetchval("SELECT count(*) FROM schema_migrations") > 0
    finally:
        await connection.close()


def test_kafka(kafka_broker: KafkaBroker, topic_prefix: str) -> None:
    assert kafka_broker.bootstrap
