"""`engagement dlq` on a real database: list, show, resume."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Self

import asyncpg
import pytest

from db import dead_letters
from db.dead_letter_log import Choice
from db.dead_letters import DeadLetterRow
from service.settings import load_settings
from streams import replaying
from tests.command import done, engagement, settings_for

ATTENDANCE, RSVP = "test.attendance", "test.rsvp"
HOSTILE = b"\x1b[2Jada"
LETTERS = [
    DeadLetterRow(ATTENDANCE, 0, 10, "schema", "status: Field required", b"club:ada", b'{"id":1}',
                  [("ce_id", b"x"), ("empty", None)], "club", "ada"),
    DeadLetterRow(ATTENDANCE, 0, 11, "not_json", "the value is not UTF-8 JSON", HOSTILE,
                  b"\xff" + HOSTILE, [], None, None),
    DeadLetterRow(ATTENDANCE, 1, 10, "schema", "user_id: Field required", None, b"{}", []),
    DeadLetterRow(RSVP, 0, 10, "null_value", "the value is null", b"club:ada", None, []),
]  # fmt: skip


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    found = await asyncpg.connect(database)
    await dead_letters.insert(found, LETTERS)
    yield found
    await found.close()


@pytest.fixture
def settings(database: str) -> dict[str, str]:
    return settings_for(database=database)


async def run(settings: dict[str, str], *arguments: str) -> str:
    return await asyncio.to_thread(done, "dlq", *arguments, settings=settings)


async def test_list(connection: asyncpg.Connection, settings: dict[str, str]) -> None:
    said = (await run(settings, "list")).splitlines()
    assert said[0].split() == ["address", "code", "failed", "replayed", "message"]
    assert {line.split()[0] for line in said[1:-1]} == {
        f"{ATTENDANCE}/0/10", f"{ATTENDANCE}/0/11", f"{ATTENDANCE}/1/10", f"{RSVP}/0/10",
    }  # fmt: skip
    assert said[-1] == "4 dead letters: 2 schema, 1 not_json, 1 null_value"


@pytest.mark.parametrize(
    ("filters", "addresses"),
    [
        (["--topic", "rsvp"], [f"{RSVP}/0/10"]),
        (["--topic", RSVP], [f"{RSVP}/0/10"]),
        (["--code", "not_json"], [f"{ATTENDANCE}/0/11"]),
        (["--code", "schema", "--topic", "attendance"],
         [f"{ATTENDANCE}/0/10", f"{ATTENDANCE}/1/10"]),
        (["--since", "2999-01-01"], []),
        (["--since", "2020-01-01T00:00:00+01:00", "--limit", "1", "--code", "null_value"],
         [f"{RSVP}/0/10"]),
    ],
)  # fmt: skip
async def test_list_filtered_as_json(
    connection: asyncpg.Connection,
    settings: dict[str, str],
    filters: list[str],
    addresses: list[str],
) -> None:
    said = await run(settings, "list", "--json", *filters)
    assert sorted(json.loads(line)["address"] for line in said.splitlines()) == addresses


async def test_list_says_nothing_of_the_content(
    connection: asyncpg.Connection, settings: dict[str, str]
) -> None:
    assert '{"id":1}' not in await run(settings, "list")


async def test_show(connection: asyncpg.Connection, settings: dict[str, str]) -> None:
    said = await run(settings, "show", f"{ATTENDANCE}/0/10")
    for line in (
        *("code: schema", "message: status: Field required", "key: club:ada", "user_id: ada"),
        *("header ce_id: x", "header empty: null", 'value (8 bytes): {"id":1}', "replayed_at: -"),
    ):
        assert line in said.splitlines()
    hostile = await run(settings, "show", "attendance/0/11")
    assert hostile.replace("\n", "").isprintable()
    assert "value (8 bytes): \\xff\\x1b[2Jada" in hostile
    found = json.loads(await run(settings, "show", f"{ATTENDANCE}/0/11", "--json"))
    assert base64.b64decode(found["value_base64"]) == b"\xff" + HOSTILE
    null: dict[str, Any] = json.loads(await run(settings, "show", f"{RSVP}/0/10", "--json"))
    assert null["value_base64"] is None


@pytest.mark.parametrize(
    ("address", "code", "said"),
    [
        (f"{ATTENDANCE}/0/99", 1, "there is no dead letter"),
        (f"{ATTENDANCE}/0", 2, "is no address"),
        (f"{ATTENDANCE}/1/99999999999999999999", 2, "is no address"),
        (f"{ATTENDANCE}/1/9223372036854775808", 2, "is no address"),
        (f"{ATTENDANCE}/1/9223372036854775807", 1, "there is no dead letter"),
        (f"{ATTENDANCE}/2147483648/1", 2, "is no address"),
        (f"{ATTENDANCE}/-1/1", 2, "is no address"),
        (f"{ATTENDANCE}/1/{'9' * 5_000}", 2, "is no address"),
        ("level/0/1", 2, "level is no input topic"),
        ("nonsense/0/1", 2, "no topic of ours is called nonsense"),
    ],
)
async def test_show_what_is_not_there(
    connection: asyncpg.Connection, settings: dict[str, str], address: str, code: int, said: str
) -> None:
    found = await asyncio.to_thread(engagement, "dlq", "show", address, settings=settings)
    assert found.returncode == code
    assert said in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("command", [["list"], ["replay", "--dry-run"], ["resume"]])
@pytest.mark.parametrize(
    ("topic", "said"),
    [("nosuch", "no topic of ours is called nosuch"), ("level", "level is no input topic")],
)
async def test_only_what_is_read_has_dead_letters(
    database: str, settings: dict[str, str], command: list[str], topic: str, said: str
) -> None:
    found = await asyncio.to_thread(
        engagement, "dlq", *command, "--topic", topic, settings=settings
    )
    assert found.returncode == 2
    assert said in found.stderr
    assert ATTENDANCE in found.stderr, "which there are"


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]], ids=["replay", "dry run"])
@pytest.mark.parametrize(
    ("given", "again", "said"),
    [
        (f"{ATTENDANCE}/0/99", [], f"{ATTENDANCE}/0/99 is no dead letter"),
        ("attendance/0/99", ["--again"], "attendance/0/99 is no dead letter"),
        (
            f"{ATTENDANCE}/0/10",
            [],
            f"{ATTENDANCE}/0/10 was replayed at 2026-01-02T03:04:05Z: --again",
        ),
        (f"{RSVP}/0/10", [], f"{RSVP}/0/10 was erased at 2026-01-02T03:04:05Z"),
        (f"{RSVP}/0/10", ["--again"], f"{RSVP}/0/10 was erased at 2026-01-02T03:04:05Z"),
    ],
)
async def test_what_is_not_replayed_is_said(
    connection: asyncpg.Connection,
    settings: dict[str, str],
    given: str,
    again: list[str],
    said: str,
    dry_run: list[str],
) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    for column, letter in (("replayed_at", LETTERS[0]), ("erased_at", LETTERS[3])):
        await connection.execute(
            f"UPDATE dead_letter SET {column} = $1"
            ' WHERE (topic, partition, "offset") = ($2, $3, $4)',
            at, *letter[:3],
        )  # fmt: skip
    # Nothing is left to be sent, so no broker is asked.
    found = await asyncio.to_thread(
        engagement, "dlq", "replay", given, *again, *dry_run, settings=settings
    )
    assert found.returncode == 1
    assert found.stdout == f"0 dead letters {'would be' if dry_run else 'were'} replayed\n"
    assert found.stderr.startswith(f"not replayed: {said}")
    assert len(found.stderr.splitlines()) == 1


async def test_a_dry_run_counts_those_that_are_left(
    connection: asyncpg.Connection, settings: dict[str, str]
) -> None:
    addresses = (f"{ATTENDANCE}/0/10", "attendance/0/10", f"{ATTENDANCE}/0/99")
    found = await asyncio.to_thread(
        engagement, "dlq", "replay", *addresses, "--dry-run", settings=settings
    )
    assert (found.returncode, found.stdout) == (1, "1 dead letters would be replayed\n")
    assert "0/99 is no dead letter" in found.stderr


async def test_resume(connection: asyncpg.Connection, settings: dict[str, str]) -> None:
    await connection.execute(
        "INSERT INTO stream_offset (topic, partition, next_offset, epoch, consecutive_failures,"
        " stopped_at) VALUES ($1, 0, 50, 3, 50, now()), ($1, 1, 60, 3, 50, now()),"
        " ($2, 0, 70, 3, 50, now()), ($2, 1, 80, 3, 2, NULL)",
        ATTENDANCE, RSVP,
    )  # fmt: skip
    said = await run(settings, "resume", "--topic", "attendance", "--partition", "1")
    assert said == f"{ATTENDANCE}/1 goes on at offset 60\n"
    said = await run(settings, "resume")
    assert sorted(said.splitlines()) == [
        f"{ATTENDANCE}/0 goes on at offset 50", f"{RSVP}/0 goes on at offset 70",
    ]  # fmt: skip
    rows = await connection.fetch(
        "SELECT epoch, consecutive_failures, stopped_at FROM stream_offset ORDER BY next_offset"
    )
    # Their owners claim anew; the one that never stood still is left alone.
    assert [tuple(row) for row in rows] == [(4, 0, None)] * 3 + [(3, 2, None)]
    assert await run(settings, "resume") == "no partition stands still\n"


async def test_an_empty_list(database: str, settings: dict[str, str]) -> None:
    assert await run(settings, "list") == "0 dead letters\n"


async def test_a_database_without_schema(postgres_server: Any) -> None:
    settings = settings_for(database=postgres_server.dsn("postgres"))
    found = await asyncio.to_thread(engagement, "dlq", "list", settings=settings)
    assert found.returncode == 1
    assert "run `engagement migrate`" in found.stderr
    assert "Traceback" not in found.stderr


async def test_no_database_and_a_wrong_password(postgres_server: Any, database: str) -> None:
    wrong = settings_for(database=f"{database.rpartition('/')[0]}/missing_{datetime.now(UTC):%f}")
    found = await asyncio.to_thread(engagement, "dlq", "list", settings=wrong)
    assert (found.returncode, "does not exist: create it" in found.stderr) == (1, True)
    away = await asyncio.to_thread(engagement, "dlq", "list", settings=settings_for())
    assert (away.returncode, "is it running" in away.stderr) == (1, True)


async def test_what_fails_again_is_not_sent_once_more(
    connection: asyncpg.Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies further on in the same partition, before the replay comes to its end."""
    other = await asyncpg.connect(database)
    sent: list[bytes | None] = []

    class Producer:
        """In place of topics: a worker refuses whatever is sent, at once."""

        def __init__(self, *_: object) -> None:
            self.end = 1_000

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None:
            await other.close()

        async def send(self, topic: str, key: bytes | None, value: bytes | None, _: object) -> None:
            sent.append(value)
            assert len(sent) <= len(LETTERS)
            self.end += 1
            await dead_letters.insert(
                other, [DeadLetterRow(topic, 1, self.end, "schema", "again", key, value, [])]
            )

        async def flush(self) -> None:
            pass

    monkeypatch.setattr(replaying, "InputProducer", Producer)
    monkeypatch.setattr(replaying, "PAGE", 2)
    replayed = replaying.replay(load_settings({"DATABASE_URL": database}), connection, Choice())
    assert [one.letter.value async for one in replayed] == sent
    assert sent == [letter.value for letter in LETTERS]
