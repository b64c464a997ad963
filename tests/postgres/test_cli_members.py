"""Commands about members and organisations, on a real database."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg
import pytest

from db import dead_letters
from db.dead_letters import DeadLetterRow
from tests.api_community import MEMBER, ORG, Community, settle
from tests.command import engagement, settings_for
from tests.servers import PostgresServer, run_sql
from tests.worker_process import WorkerProcess

THRESHOLDS = ["--new-member-days", "30"]
UNKNOWN = [
    (["thresholds", "show", "typo"], "no record has ever named organisation typo"),
    (["thresholds", "preview", "typo", *THRESHOLDS], "no record has ever named organisation typo"),
    (["thresholds", "set", "typo", *THRESHOLDS], "no record has ever named organisation typo"),
    (["recompute", "--org", "typo", "--force"], "nobody is known in organisation typo"),
    (["recompute", "--org", "typo", "--as-of", "2026-01-01T00:00:00Z"],
     "nobody is known in organisation typo"),
    (["recompute", "--org", ORG, "--member", "typo", "--json"],
     f"no member typo is known in organisation {ORG}"),
    (["recompute", "--member", "typo"], "no member typo is known in any organisation"),
]  # fmt: skip


@pytest.fixture
async def community(database: str) -> AsyncIterator[Community]:
    found = await settle(database)
    yield found
    await found.connection.close()


async def run(database: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = settings_for(database=database)
    return await asyncio.to_thread(engagement, *arguments, settings=settings)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["set", ORG], "nothing to set"),
        (["set", ORG, "--note", "n"], "nothing to set"),
        (["set", ORG, "--highly-engaged-min-events", "1"], "must be above moderate_min_events"),
        (["preview", ORG, "--highly-engaged-min-events", "99999"], "at most 10000"),
    ],
)
async def test_numbers_that_make_no_sense_are_wrong_use(
    command: list[str], said: str, community: Community, database: str
) -> None:
    found = await run(database, "thresholds", *command)
    assert found.returncode == 2
    assert said in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(("command", "said"), UNKNOWN)
async def test_whom_nobody_knows_is_said(
    command: list[str], said: str, community: Community, database: str
) -> None:
    found = await run(database, *command)
    assert (found.returncode, found.stderr) == (0, f"warning: {said}\n")


@pytest.mark.parametrize(
    "command",
    [
        ["thresholds", "show", ORG],
        ["thresholds", "preview", ORG, *THRESHOLDS],
        ["thresholds", "set", ORG, *THRESHOLDS],
        ["recompute", "--org", ORG, "--member", MEMBER],
        ["recompute", "--member", MEMBER, "--dry-run"],
    ],
)
async def test_nothing_is_said_of_who_is_known(
    command: list[str], community: Community, database: str
) -> None:
    found = await run(database, *command)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize(("org", "user"), [("", ""), (ORG, ""), ("", MEMBER), ("a:b", "x y")])
async def test_erasing_what_is_no_id_does_nothing(org: str, user: str, database: str) -> None:
    connection: asyncpg.Connection = await asyncpg.connect(database)
    try:
        letter = DeadLetterRow("t", 0, 1, "schema", "broken", b"choir:bob", b"{}", [])
        await dead_letters.insert(connection, [letter])
        found = await run(database, "erase", org, user)
        assert (found.returncode, found.stdout) == (2, "")
        left = await connection.fetchrow("SELECT key, erased_at FROM dead_letter")
        assert tuple(left or ()) == (b"choir:bob", None)
        assert await connection.fetchval("SELECT count(*) FROM erasure") == 0
    finally:
        await connection.close()


@asynccontextmanager
async def login(server: PostgresServer, database: str, *roles: str) -> AsyncIterator[str]:
    """The URL of the database for a login in these roles and no others."""
    name = f"login_{secrets.token_hex(4)}"
    within = f" IN ROLE {', '.join(roles)}" if roles else ""
    await run_sql(server, f"CREATE ROLE {name} LOGIN PASSWORD 'of-a-test'{within}")
    try:
        url = urlsplit(database)
        netloc = f"{name}:of-a-test@{url.hostname}:{url.port}"
        yield url._replace(netloc=netloc).geturl()
    finally:
        await run_sql(server, f"DROP ROLE {name}")


ABOUT_MEMBERS = [
    ["recompute", "--org", ORG, "--force"],
    ["recompute", "--org", ORG, "--dry-run", "--json"],
    ["thresholds", "show", ORG],
    ["thresholds", "preview", ORG, *THRESHOLDS],
    ["thresholds", "set", ORG, *THRESHOLDS],
    ["erase", ORG, "bo.who"],
]


@pytest.mark.parametrize("command", ABOUT_MEMBERS, ids=" ".join)
async def test_a_login_that_sees_one_organisation_is_refused(
    command: list[str], community: Community, database: str, postgres_server: PostgresServer
) -> None:
    """Or else it would say that there is nobody."""
    async with login(postgres_server, database, "engagement_api") as url:
        found = await run(url, *command)
    assert (found.returncode, found.stdout) == (1, "")
    assert len(found.stderr.splitlines()) == 1
    assert "commands need a login of the role engagement_worker" in found.stderr


async def test_the_workers_role_is_enough(
    community: Community, database: str, postgres_server: PostgresServer
) -> None:
    async with login(postgres_server, database, "engagement_worker") as url:
        for command in ABOUT_MEMBERS:
            found = await run(url, *command)
            assert (found.returncode, found.stderr) == (0, ""), command


@pytest.mark.parametrize(
    ("roles", "command", "said"),
    [
        ([], ["recompute"], "permission denied for table schema_migrations"),
        ([], ["dlq", "list"], "permission denied for table dead_letter"),
        (["engagement_api"], ["dlq", "list"], "permission denied for table dead_letter"),
        (["engagement_api"], ["recompute", "--status"], "permission denied for table"),
        (["engagement_api"], ["migrate"], "`engagement migrate` needs the login that owns"),
        (["engagement_worker"], ["migrate"], "`engagement migrate` needs the login that owns"),
    ],
)
async def test_a_right_that_a_login_lacks_is_said_in_one_line(
    roles: list[str],
    command: list[str],
    said: str,
    database: str,
    postgres_server: PostgresServer,
) -> None:
    async with login(postgres_server, database, *roles) as url:
        found = await run(url, *command)
    assert (found.returncode, found.stdout) == (1, "")
    assert len(found.stderr.splitlines()) == 1
    assert said in found.stderr
    assert found.stderr.endswith("see docs/deploy.md\n")


async def test_a_worker_waits_for_a_login_that_sees_everybody(
    database: str, postgres_server: PostgresServer
) -> None:
    async with login(postgres_server, database, "engagement_api") as url:
        with WorkerProcess(settings_for(database=url)) as worker:
            line = await asyncio.to_thread(worker.wait_for, "waiting")
            assert "sees the members of one organisation at a time" in line["reason"]
            assert (await asyncio.to_thread(worker.end))[0] == 0
