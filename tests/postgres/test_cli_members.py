"""Commands about members and organisations, on a real database."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator

import asyncpg
import pytest

from db import dead_letters
from db.dead_letters import DeadLetterRow
from tests.api_community import MEMBER, ORG, Community, settle
from tests.command import engagement, settings_for

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
