"""A database whose owner is nobody special: no superuser, and so under row-level security."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

import asyncpg
import pytest

from db import intake
from db.actions import ActionParts
from db.api_store import ApiStore
from db.member_ids import MemberIds
from db.migrate import migrate
from service.events import InputKind
from service.levels import Level
from tests.api_community import ADMIN, LEFT, MEMBER, ORG, settle
from tests.command import engagement
from tests.command import settings_for as command_settings
from tests.postgres.api_client import settings_for
from tests.servers import PostgresServer, run_sql

ROLES = ("engagement_worker", "engagement_api", "engagement_eraser")


@pytest.fixture
async def owned(postgres_server: PostgresServer, template_database: str) -> AsyncIterator[str]:
    """An empty database of a login that may create roles; the service's roles are there already."""
    name = f"owner_{secrets.token_hex(4)}"
    await run_sql(postgres_server, f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD 'of-a-test'")
    await run_sql(postgres_server, f"CREATE DATABASE {name} OWNER {name}")
    url = urlsplit(postgres_server.dsn(name))
    yield url._replace(netloc=f"{name}:of-a-test@{url.hostname}:{url.port}").geturl()
    await run_sql(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")
    await run_sql(postgres_server, f"DROP ROLE {name}")


async def follow_the_hints(server: PostgresServer, dsn: str) -> None:
    """Migrate; where a right is missing, do as a superuser what the error says."""
    for _ in range(len(ROLES) + 1):
        try:
            await migrate(dsn)
        except asyncpg.InsufficientPrivilegeError as error:
            advice = error.hint or ""
            for statement in advice.removeprefix("as a superuser: ").split("; "):
                await run_sql(server, statement)
        else:
            return
    await migrate(dsn)


@pytest.mark.parametrize("count", [1, intake.FEW_ROWS + 1], ids=["few", "many"])
async def test_records_are_taken_in_for_a_plain_owner(
    owned: str, postgres_server: PostgresServer, count: int
) -> None:
    """Under row-level security some statements fail that a superuser may use."""
    await follow_the_hints(postgres_server, owned)
    at = datetime.now(UTC)
    rows = [(f"m-{n}", ORG, MEMBER, f"event-{n}", "attended", at, at) for n in range(count)]
    connection = await asyncpg.connect(owned)
    try:
        await intake.prepare_connection(connection)
        for _ in range(2):
            async with connection.transaction():
                await intake.apply_rows(connection, InputKind.ATTENDANCE, rows, MemberIds())
        assert await connection.fetchval("SELECT row_security_active('attendance_fact')")
        assert await connection.fetchval("SELECT count(*) FROM attendance_fact") == count
    finally:
        await connection.close()


async def test_a_right_that_the_owner_lacks_is_said_with_what_gives_it(owned: str) -> None:
    found = await asyncio.to_thread(
        engagement, "migrate", settings=command_settings(database=owned)
    )
    assert found.returncode == 1
    assert len(found.stderr.splitlines()) == 1
    assert "may not use engagement_worker and engagement_api" in found.stderr
    assert "HINT: as a superuser: GRANT engagement_worker TO owner_" in found.stderr


async def test_everything_works_for_a_plain_owner(
    owned: str, postgres_server: PostgresServer
) -> None:
    await follow_the_hints(postgres_server, owned)
    community = await settle(owned)
    try:
        confined = await community.connection.fetchval(
            "SELECT row_security_active('engagement') AND NOT rolsuper AND NOT rolbypassrls"
            " FROM pg_roles WHERE rolname = current_user"
        )
        assert confined, "otherwise this would show nothing"
        seen = await community.connection.fetch(
            "SELECT user_id, level FROM member_engagement WHERE org_id = $1", ORG
        )
        assert {row["user_id"]: row["level"] for row in seen}[MEMBER] == "moderate"
        assert await community.connection.fetchval("SELECT count(*) FROM outbox") >= len(seen)

        settings = settings_for(owned)
        parts = ActionParts(settings)
        store = await ApiStore.open(settings, parts, prepare=parts.prepare)
        try:
            async with store.organization(ORG, writes=True) as organization:
                await organization.actions.set_override(
                    ORG, MEMBER, level=Level.NEW, notes="n", expires_at=None,
                    performed_by=ADMIN, if_revision=None,
                )  # fmt: skip
            async with store.organization(ORG) as organization:
                shown = await organization.member(MEMBER)
                assert shown is not None
                assert shown.level is Level.NEW
            async with store.organization(ORG, writes=True) as organization:
                receipt = await organization.actions.erase(ORG, LEFT, performed_by=ADMIN)
                assert receipt.removed
        finally:
            await store.close()
    finally:
        await community.connection.close()
