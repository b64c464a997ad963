"""Row-level security: a query without a WHERE finds one organisation, or nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from db.actions import ActionParts
from db.api_store import SET_ORGANIZATION, SET_ROLE, ApiStore
from service.errors import SettingsError
from tests.api_community import ORG, OTHER_MEMBER, OTHER_ORG, settle
from tests.postgres.api_client import settings_for

SCOPED = """
SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity, c.relkind,
       ARRAY(SELECT p.polname FROM pg_policy p WHERE p.polrelid = c.oid) AS policies
FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND EXISTS (
    SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped
    AND a.attname IN ('org_id', 'member_id', 'member_ids', 'user_id'))"""
READABLE = """
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
  AND has_table_privilege('engagement_api', c.oid, 'SELECT')
ORDER BY 1"""

# No row of these is about anybody in an organisation.
SHARED = {
    "explanation", "http_session", "verdict", "schema_migrations", "engagement_confirmation",
}  # fmt: skip
# Of workers only: the API's role has no privilege there.
WORKERS_ONLY = {"due_user", "dead_letter", "batch_failure"}
# Rows about members of several organisations at once: nothing to confine by, so workers only too.
MIXED = {"due_batch", "batch_chunk"}


@pytest.fixture
async def admin(database: str) -> AsyncIterator[asyncpg.Connection]:
    community = await settle(database)
    await community.execute(
        "INSERT INTO due_member (member_id, cause) SELECT member_id, 'time' FROM member"
    )
    await community.execute(
        "INSERT INTO due_organization (org_id, cause) SELECT org_id, 'time' FROM organization_fact"
    )
    await community.execute(
        "INSERT INTO engagement_confirmation_exception (block, org_id)"
        " SELECT 0, org_id FROM organization_fact"
    )
    await community.respond(OTHER_MEMBER, 3, org_id=OTHER_ORG)
    for org in (ORG, OTHER_ORG):
        await community.execute(
            "INSERT INTO thresholds VALUES ($1, 1, 4, 2, 90, 60, 180, 'a', '', now())", org
        )
    await community.execute(
        "INSERT INTO engagement_override_history (engagement_id, performed_at, org_id, user_id,"
        " action, performed_by) SELECT member_id, now(), org_id, user_id, 'clear', 'x' FROM member"
    )
    await community.execute(
        "INSERT INTO profile_fact SELECT now(), now(), user_id, 'm', 'member' FROM member"
    )
    yield community.connection
    await community.connection.close()


async def test_every_table_with_somebody_in_it_is_confined(admin: asyncpg.Connection) -> None:
    rows = await admin.fetch(SCOPED)
    found = {row["relname"] for row in rows} - SHARED
    assert {"member", "engagement", "attendance_fact", "outbox", "dead_letter"} <= found
    for row in rows:
        name = row["relname"]
        if name in SHARED | MIXED:
            continue
        assert row["relrowsecurity"], name
        assert row["relforcerowsecurity"], name
        assert "everything" in row["policies"], name
        assert ("one_organization" in row["policies"]) is (name not in WORKERS_ONLY), name
    privileged = {row["relname"] for row in await admin.fetch(READABLE)}
    assert not privileged & (WORKERS_ONLY | MIXED)


async def test_a_query_without_where_finds_one_organisation(admin: asyncpg.Connection) -> None:
    readable = [row["relname"] for row in await admin.fetch(READABLE)]
    assert "member_engagement" in readable
    names = [
        row["user_id"]
        for row in await admin.fetch("SELECT user_id FROM member WHERE org_id <> $1", ORG)
    ]
    assert names
    for table in readable:
        if table in SHARED:
            continue
        everything = await admin.fetch(f'SELECT t::text AS row FROM "{table}" t')
        assert everything, f"{table} is empty: the test would show nothing"
        async with admin.transaction():
            await admin.execute(SET_ROLE)
            unset = await admin.fetch(f'SELECT t::text AS row FROM "{table}" t')
            assert unset == [], table
            await admin.execute(SET_ORGANIZATION, ORG)
            seen = await admin.fetch(f'SELECT t::text AS row FROM "{table}" t')
        assert 0 < len(seen) < len(everything), table
        values = {value for row in seen for value in row["row"].strip("()").split(",")}
        assert OTHER_ORG not in values, table
        assert not values.intersection(names), table


WRITES = (
    "UPDATE engagement SET override_notes = override_notes WHERE org_id <> '{org}'",
    "INSERT INTO thresholds VALUES ('{other}', 9, 4, 2, 90, 60, 180, 'a', '', now())",
    "INSERT INTO due_organization (org_id, cause) VALUES ('{other}', 'time')",
    "INSERT INTO due_member (member_id, cause) VALUES ({member}, 'time')",
    "INSERT INTO outbox (member_id, revision, message_key) VALUES ({member}, 1, 'k')",
    """INSERT INTO engagement_override_history
       (engagement_id, performed_at, org_id, user_id, action, performed_by)
       VALUES ({member}, now(), '{other}', 'u', 'clear', 'x')""",
)


@pytest.mark.parametrize("statement", WRITES)
async def test_writing_into_another_organisation_fails(
    admin: asyncpg.Connection, statement: str
) -> None:
    member = await admin.fetchval("SELECT member_id FROM member WHERE org_id = $1", OTHER_ORG)
    text = statement.format(org=ORG, other=OTHER_ORG, member=member)
    transaction = admin.transaction()
    await transaction.start()
    try:
        await admin.execute(SET_ROLE)
        await admin.execute(SET_ORGANIZATION, ORG)
        if statement.startswith("UPDATE"):
            assert await admin.execute(text) == "UPDATE 0"
        else:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await admin.execute(text)
    finally:
        await transaction.rollback()


@pytest.mark.parametrize("table", ["engagement_level_history", "engagement_override_history"])
async def test_histories_cannot_be_changed(admin: asyncpg.Connection, table: str) -> None:
    for statement in (
        f"UPDATE {table} SET user_id = 'x'",
        f"DELETE FROM {table}",
        f"TRUNCATE {table}",
    ):
        for role in ("engagement_api", "engagement_worker", None):
            transaction = admin.transaction()
            await transaction.start()
            try:
                if role is not None:
                    await admin.execute(f"SET LOCAL ROLE {role}")
                    await admin.execute(SET_ORGANIZATION, ORG)
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await admin.execute(statement)
            finally:
                await transaction.rollback()


async def open_store(dsn: str) -> None:
    settings = settings_for(dsn)
    parts = ActionParts(settings)
    store = await ApiStore.open(settings, parts, prepare=parts.prepare)
    await store.close()


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("ALTER TABLE engagement NO FORCE ROW LEVEL SECURITY", "engagement"),
        ("ALTER TABLE membership_fact DISABLE ROW LEVEL SECURITY", "membership_fact"),
        ("CREATE POLICY open ON member TO PUBLIC USING (true)", "member"),
        ("CREATE POLICY open ON member TO engagement_api USING (true)", "member"),
        ("CREATE TABLE x (org_id text); GRANT SELECT ON x TO engagement_api", "x"),
    ],
)
async def test_the_api_refuses_to_start_where_rows_are_not_confined(
    database: str, damage: str, complaint: str
) -> None:
    await open_store(database)
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(damage)
    finally:
        await connection.close()
    with pytest.raises(SettingsError, match=complaint):
        await open_store(database)
