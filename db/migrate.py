"""Applies `migrations/NNNN_name.sql` in order, each in its own transaction, once.

Files are never edited after they have landed: a checksum that differs stops everything. Any number
of processes may migrate at the same time; an advisory lock lets one through.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final, NamedTuple

from db.connecting import Connector
from db.errors import translated
from db.pool import Connection, tls_arguments
from service.errors import EngagementError, NotReady
from service.settings import Settings

MIGRATIONS: Final = Path(__file__).parent / "migrations"
LOCK_KEY: Final = 0x656E676167  # "engag"

OWNER: Final = "`engagement migrate` needs the login that owns the schema"

CREATE_TABLE: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    text PRIMARY KEY,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""
SELECT_APPLIED: Final = "SELECT version, checksum FROM schema_migrations"
TABLE_EXISTS: Final = "SELECT to_regclass('public.schema_migrations') IS NOT NULL"
INSERT_APPLIED: Final = "INSERT INTO schema_migrations (version, checksum) VALUES ($1, $2)"


class MigrationDrift(EngagementError):
    """The database holds something other than what these files make."""


class Migration(NamedTuple):
    """One file: its version (the file's stem), text and SHA-256."""

    version: str
    sql: str
    checksum: str


def migrations() -> list[Migration]:
    """Every migration of this release, in order."""
    found = []
    for path in sorted(MIGRATIONS.glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        found.append(Migration(path.stem, text, hashlib.sha256(text.encode()).hexdigest()))
    return found


async def migrate_with(settings: Settings) -> list[str]:
    """`migrate` the database of the settings.

    Raises MigrationDrift, LacksRights, NotReady, Retryable.
    """
    with translated(needs=OWNER):
        return await migrate(settings.database_url.get_secret_value(), **tls_arguments(settings))


async def migrate(dsn: str, **connecting: Any) -> list[str]:
    """Bring the database to this release's schema; returns the versions applied now. Idempotent.

    Opens its own connection. Raises MigrationDrift when an applied file has changed since.
    """
    connection = await Connector(dsn).connect(command_timeout=600, **connecting)
    try:
        await connection.execute("SET lock_timeout = '60s'")
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK_KEY)
        await connection.execute(CREATE_TABLE)
        applied = {row[0]: row[1] for row in await connection.fetch(SELECT_APPLIED)}
        done = []
        for migration in migrations():
            if migration.version in applied:
                _check(migration, applied[migration.version])
                continue
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(INSERT_APPLIED, migration.version, migration.checksum)
            done.append(migration.version)
        return done
    finally:
        await connection.close(timeout=5)


async def require_current(connection: Connection) -> str:
    """Return the schema version, or raise NotReady (behind) or MigrationDrift (changed)."""
    exists = await connection.fetchval(TABLE_EXISTS)
    rows = await connection.fetch(SELECT_APPLIED) if exists else []
    applied = {row[0]: row[1] for row in rows}
    version = ""
    for migration in migrations():
        version = migration.version
        if version not in applied:
            raise NotReady(f"the database lacks schema version {version}: run `engagement migrate`")
        _check(migration, applied[version])
    return version


def _check(migration: Migration, applied_checksum: str) -> None:
    if migration.checksum != applied_checksum:
        raise MigrationDrift(
            f"migration {migration.version} differs from the one applied to this database; "
            "use the release that matches, or restore the file"
        )
