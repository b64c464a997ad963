"""The real servers that tests run on: ours by default, or given ones."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

import asyncpg
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

TEMPLATE = "engagement_template"


class PostgresServer(Protocol):
    """What the fixtures need of a PostgreSQL server."""

    def dsn(self, database: str = "postgres") -> str:
        """The URL of a database on it, for a user who may create databases."""


class KafkaBroker(Protocol):
    """What the fixtures need of a Kafka cluster."""

    @property
    def bootstrap(self) -> str:
        """``host:port``, comma-separated."""


@dataclass(frozen=True)
class GivenPostgres:
    """A server that somebody else runs, from TEST_DATABASE_URL."""

    url: str

    def dsn(self, database: str = "postgres") -> str:
        """The URL with another database in it."""
        return urlsplit(self.url)._replace(path=f"/{database}").geturl()


@dataclass(frozen=True)
class GivenKafka:
    """A cluster that somebody else runs, from TEST_KAFKA_BOOTSTRAP_SERVERS."""

    bootstrap: str


def make_topics(bootstrap: str, names: Sequence[str], *, partitions: int) -> None:
    """Make topics without copies, and wait until they are there."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    made = admin.create_topics([NewTopic(name, partitions, 1) for name in names])
    for future in made.values():
        future.result(30)


async def run_sql(server: PostgresServer, statement: str) -> None:
    """Run one statement as administrator, outside any transaction."""
    connection = await asyncpg.connect(server.dsn())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@asynccontextmanager
async def cloned_database(server: PostgresServer, template: str) -> AsyncIterator[str]:
    """A database of one's own, as the template is; gives its URL and drops it afterwards.

    The template must have no connections. Takes some 50 ms.
    """
    name = f"test_{secrets.token_hex(6)}"
    await run_sql(server, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield server.dsn(name)
    finally:
        await run_sql(server, f'DROP DATABASE "{name}" WITH (FORCE)')
