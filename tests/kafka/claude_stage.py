"""A worker that asks a stand-in for Claude, with topics and a database of its own to look at."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg

from db import evaluation
from db.actions import ActionParts
from db.pool import open_pool, transaction
from service.demo.fake_claude import FakeClaude
from service.demo.input_record import InputRecord, key_of, value_of
from service.levels import Level
from service.settings import Settings, load_settings
from streams.producing import InputProducer
from streams.tailing import reading
from streams.topics import apply_topics, input_topics
from tests.command import TOPICS, settings_for, topic

POLL_S: Final = 0.05
ORGANIZATIONS: Final = 4
INPUTS: Final = TOPICS[:5]

APPLIED: Final = "SELECT coalesce(sum(next_offset), 0) FROM stream_offset"
# Waiting verdicts are not in here: nobody waits for them.
UNDONE: Final = """
SELECT (SELECT count(*) FROM due_member) + (SELECT count(*) FROM due_user)
     + (SELECT count(*) FROM due_batch) + (SELECT count(*) FROM due_organization)
     + (SELECT count(*) FROM outbox) + (SELECT count(*) FROM dead_letter)"""
VERDICTS: Final = """
SELECT count(*) FILTER (WHERE status = 'answered') AS answered,
       count(*) FILTER (WHERE status = 'pending') AS pending FROM verdict"""

MONTHS: Final = (
    "January|February|March|April|May|June|July|August|September|October|November|December"
)
DATES: Final = re.compile(rf"\b20\d\d\b|\b\d{{1,2}}:\d\d\b|\b\d{{1,2}}\.? (?:{MONTHS})\b")

Body = dict[str, Any]


class Stage:
    """What one worker runs on; nothing of it is used by another, except perhaps the input."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self.settings: Settings = load_settings(self.environment)

    # Input

    async def send(self, records: Iterable[InputRecord]) -> int:
        """Produce them; how many, once all are acknowledged."""
        names = {kind.value: name for name, kind in input_topics(self.settings).items()}
        count = 0
        async with InputProducer(self.settings, list(names.values())) as producer:
            for record in records:
                await producer.send(names[record.kind], record.key, record.value)
                count += 1
        return count

    async def override(self, org_id: str, user_id: str, level: Level) -> None:
        """Set one as the API does; the member is the administrator."""
        prepare = evaluation.prepare_connection
        pool = await open_pool(self.settings, purpose="test", size=1, prepare=prepare)
        try:
            async with transaction(pool) as connection:
                await ActionParts(self.settings)(connection).set_override(
                    org_id, user_id, level=level, notes="We know each other.", expires_at=None,
                    performed_by=user_id, if_revision=None,
                )  # fmt: skip
        finally:
            pool.terminate()

    # What came of it

    async def row(self, query: str, *arguments: object) -> Any:
        """The first row of a query."""
        connection = await asyncpg.connect(self.environment["DATABASE_URL"], timeout=20)
        try:
            return await connection.fetchrow(query, *arguments)
        finally:
            await connection.close(timeout=10)

    async def history(self) -> list[Any]:
        """Every change of level that the database has."""
        connection = await asyncpg.connect(self.environment["DATABASE_URL"], timeout=20)
        try:
            return list(await connection.fetch("SELECT * FROM engagement_level_history"))
        finally:
            await connection.close(timeout=10)

    async def until_applied(self, records: int, timeout_s: float = 60) -> None:
        """Wait until so many records have had their effect."""
        await self._until(APPLIED, lambda found: found >= records, timeout_s)

    async def until_settled(self, records: int, timeout_s: float = 60) -> None:
        """Wait until so many records are applied, evaluated and published."""
        await self.until_applied(records, timeout_s)
        await self._until(UNDONE, lambda found: found == 0, timeout_s)

    async def until_answered(self, timeout_s: float = 60) -> None:
        """Wait until no situation waits for an answer, and all of that is published."""
        pending = f"SELECT pending FROM ({VERDICTS}) AS v"
        await self._until(pending, lambda found: found == 0, timeout_s)
        await self._until(UNDONE, lambda found: found == 0, timeout_s)

    async def _until(self, query: str, is_enough: Any, timeout_s: float) -> None:
        connection = await asyncpg.connect(self.environment["DATABASE_URL"], timeout=20)
        deadline = time.monotonic() + timeout_s
        try:
            while not is_enough(found := await connection.fetchval(query)):
                assert time.monotonic() < deadline, f"{found} after {timeout_s} s: {query}"
                await asyncio.sleep(POLL_S)
        finally:
            await connection.close(timeout=10)

    async def published(self) -> tuple[dict[str, list[Body]], dict[str, list[Body]]]:
        """Level records and changes so far: key -> bodies in order."""
        levels: defaultdict[str, list[Body]] = defaultdict(list)
        changes: defaultdict[str, list[Body]] = defaultdict(list)
        names = {self.settings.topic_level: levels, self.settings.topic_change: changes}
        async with reading(self.settings, list(names), from_beginning=True) as reader:
            async for record in reader.until_end():
                assert record.key is not None
                assert record.value is not None
                names[record.topic][record.key.decode()].append(json.loads(record.value))
        return levels, changes


@asynccontextmanager
async def staged(
    bootstrap: str, database: str, prefix: str, *, inputs: str = "", **more: str
) -> AsyncIterator[Stage]:
    """A stage with its topics. `inputs`: the prefix of the input topics, if not its own."""
    environment = settings_for(bootstrap=bootstrap, database=database, prefix=prefix)
    for name in INPUTS:
        environment[f"ENGAGEMENT_TOPIC_{name}"] = topic(inputs or prefix, name)
    stage = Stage({**environment, **more})
    await apply_topics(stage.settings)
    yield stage


def asking(fake: FakeClaude) -> dict[str, str]:
    """Settings of a worker that asks the stand-in."""
    return {"ANTHROPIC_API_KEY": "stand-in", "ANTHROPIC_BASE_URL": fake.base_url}


async def until_asked(fake: FakeClaude, timeout_s: float = 60) -> None:
    """Wait for the first question; the SDK is imported for it, which takes its time."""
    deadline = time.monotonic() + timeout_s
    while not fake.requests:
        assert time.monotonic() < deadline, f"nothing was asked in {timeout_s} s"
        await asyncio.sleep(POLL_S)


# ------------------------------------------------------------------------------------- population


def member(mark: str, number: int) -> tuple[str, str]:
    """Ids of the organisation and the person."""
    return f"{mark}-org-{number % ORGANIZATIONS}", f"{mark}-user-{number}"


def opening(mark: str, members: int, now: datetime) -> Iterator[InputRecord]:
    """Organisations and memberships; every id and name is unique and has `mark` in it."""
    for number in range(ORGANIZATIONS):
        body = {"org_id": f"{mark}-org-{number}"}
        yield _record(
            mark, "organization", body, now, name=f"The {mark} Club {number}", status="active"
        )
    for number in range(members):
        org_id, user_id = member(mark, number)
        joined_at = now - timedelta(days=20 + 37 * number % 1_100, minutes=number)
        yield _record(
            mark, "membership", {"org_id": org_id, "user_id": user_id}, joined_at,
            status="active", display_name=f"{mark} Name {number}", joined_at=joined_at,
        )  # fmt: skip


def activity(mark: str, members: int, records: int, now: datetime) -> Iterator[InputRecord]:
    """Attendance and answers of these members, from most to none within the window."""
    for number in range(records):
        who, turn = number % members, number // members
        org_id, user_id = member(mark, who)
        at = now - timedelta(days=1 + (53 * who) % 400 + 29 * turn, minutes=7 * number % 1_000)
        body = {"org_id": org_id, "user_id": user_id, "event_id": f"{mark}-event-{number}"}
        if (who + turn) % 3:
            yield _record(mark, "attendance", body, at, status="attended", occurred_at=at)
        else:
            yield _record(mark, "rsvp", body, at, response="going", responded_at=at)


def _record(
    mark: str, kind: str, ids: dict[str, str], recorded_at: datetime, **more: str | datetime
) -> InputRecord:
    body: dict[str, str | datetime] = {**ids, "recorded_at": recorded_at, **more}
    plain = {
        name: value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
        for name, value in body.items()
    }
    identity = "|".join([mark, kind, *ids.values()])
    return InputRecord(kind, key_of(ids), value_of({"id": identity, **plain}))


def assert_nothing_personal(fake: FakeClaude, mark: str) -> None:
    """No name, id or date in any request, its headers included."""
    assert fake.requests
    for request in fake.requests:
        wire = json.dumps(request.headers) + request.raw.decode()
        assert mark not in wire.lower()
        found = DATES.search(request.raw.decode())
        assert found is None, found
