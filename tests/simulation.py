"""The service without Kafka beside the oracle: the same records, clocks and administrators.

The database's clock stands still until it is set, so that a year takes a minute.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from asyncpg import RaiseError

from db import erasures, evaluation, plain_batches, thresholds
from db.daily import Daily, Step
from db.evaluating import Evaluating, RulesJudge
from db.evaluation import CaseReader
from db.explanations import ExplanationCache
from db.intake import Applied
from db.member_ids import MemberIds
from db.overrides import Overriding
from db.plain_batches import apply_plain
from db.pool import Pool, acquired, open_pool, transaction
from db.survey import Judging
from service.classifier.templates import MODEL_VERSION
from service.demo.input_record import InputRecord, key_of, value_of
from service.errors import Conflict
from service.events import InputKind
from service.levels import Level
from service.schedule import latest_slot
from service.settings import load_settings
from service.thresholds import Thresholds
from streams.applying import apply_decoded
from streams.intake import Decoded, decode_batch
from tests.oracle import Oracle

CRON = "0 4 * * *"
SKEW = timedelta(days=1)
MEMORY = timedelta(days=400)

CLOCK = """
CREATE OR REPLACE FUNCTION engagement_now() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE RETURN timestamptz '{at}'"""

SELECT_LEVELS = "SELECT org_id, user_id, level FROM member_engagement WHERE level IS NOT NULL"
SELECT_HISTORY = """
SELECT org_id, user_id, from_level, to_level, cause, effective_at, recorded_at, revision
FROM engagement_level_history ORDER BY member_id, revision"""


@dataclass
class Raw:
    """A record as the consumer hands it over."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


async def prepare(connection: Any) -> None:
    """Both what intake and what evaluation need."""
    await plain_batches.prepare_connection(connection)
    await evaluation.prepare_connection(connection)


class Simulation:
    """What a worker has, and the oracle. Everything goes through both."""

    def __init__(self, pool: Pool, now: datetime, *, implicit_membership: bool = True) -> None:
        self.pool = pool
        self.now = now
        self.oracle = Oracle(implicit_membership=implicit_membership)
        reader = CaseReader(ExplanationCache(), implicit_membership=implicit_membership)
        self.evaluating = Evaluating(reader, RulesJudge())
        self.overriding = Overriding(self.evaluating)
        self.implicit_membership = implicit_membership
        self.missed_by_clock = 0
        self._ids = MemberIds()
        self._numbers = iter(range(1, 10**9))
        # Every other batch that may go the short way does.
        self._turns = itertools.cycle([True, False])

    # Time

    async def set_clock(self, now: datetime) -> None:
        """Let it be this instant."""
        self.now = now
        async with acquired(self.pool) as connection:
            await connection.execute(CLOCK.format(at=now.isoformat()))

    async def advance(self, by: timedelta) -> None:
        """Let time pass."""
        await self.set_clock(self.now + by)

    # Records

    def record(self, kind: str, **body: Any) -> InputRecord:
        """One good record; `id` and `recorded_at` are supplied where they are missing."""
        body = {"id": f"m{next(self._numbers):09d}", "recorded_at": self.now} | body
        plain: dict[str, Any] = {n: _plain(v) for n, v in body.items()}
        return InputRecord(kind, key_of(plain), value_of(plain))

    async def send(self, kind: str, **body: Any) -> None:
        """Apply one good record."""
        await self.apply([self.record(kind, **body)])

    async def join(self, org_id: str, user_id: str, joined_at: datetime, **more: Any) -> None:
        """An active membership record."""
        body = {"status": "active", "joined_at": joined_at} | more
        await self.send("membership", org_id=org_id, user_id=user_id, **body)

    async def attend(self, org_id: str, user_id: str, *instants: datetime) -> None:
        """One attendance record for each instant."""
        for at in instants:
            await self.send(
                "attendance", org_id=org_id, user_id=user_id, event_id=f"e{next(self._numbers)}",
                status="attended", occurred_at=at,
            )  # fmt: skip

    async def tombstone(self, org_id: str, user_id: str) -> None:
        """Erase a member, now."""
        await self.apply([InputRecord("membership", f"{org_id}:{user_id}".encode(), None)])

    async def apply(self, records: Iterable[InputRecord]) -> None:
        """Apply records, now, in batches of one kind; the oracle must refuse the same ones."""
        batches: list[tuple[str, list[InputRecord]]] = []
        for record in records:
            if not batches or batches[-1][0] != record.kind:
                batches.append((record.kind, []))
            batches[-1][1].append(record)
        for kind, batch in batches:
            await self._apply_batch(kind, batch)

    async def _apply_batch(self, kind: str, batch: list[InputRecord]) -> None:
        at_ms = int(self.now.timestamp() * 1000)
        raws = [Raw(n, at_ms, r.key, r.value, r.headers) for n, r in enumerate(batch)]
        decoded = decode_batch(
            InputKind(kind), raws, latest_allowed=self.now + SKEW, max_consecutive_failures=10**9
        )
        if decoded.is_plain and next(self._turns):
            applied = await self._apply_plain(decoded)
        else:
            applied = await self._apply(decoded)
        self._ids.remember(applied.members, applied.epoch, self._ids.renewals)
        sent_at = datetime.fromtimestamp(at_ms / 1000, UTC)
        for record in batch:
            self.oracle.apply(
                record.kind, record.key, record.value, now=self.now, timestamp=sent_at,
                headers=record.headers,
            )  # fmt: skip

    async def _apply(self, decoded: Decoded) -> Applied:
        async with transaction(self.pool) as connection:
            if decoded.erasures:
                await erasures.hold(connection)
            applied = await apply_decoded(connection, decoded, self._ids)
            if decoded.erasures:
                subjects = [erasures.Subject(*one[:3]) for one in decoded.erasures]
                await erasures.erase_all(connection, subjects, MEMORY)
        return applied

    async def _apply_plain(self, decoded: Decoded) -> Applied:
        try:
            async with acquired(self.pool) as connection:
                applied, _ = await apply_plain(
                    connection, decoded.kind, [], decoded.rows, self._ids,
                    latest_accepted=decoded.latest_accepted, max_skew=SKEW,
                )  # fmt: skip
        except RaiseError:
            return await self._apply(decoded)
        return applied

    # Administrators

    async def set_override(
        self, org_id: str, user_id: str, level: str, expires_at: datetime | None = None
    ) -> int:
        """Set it here and there."""
        async with transaction(self.pool) as connection:
            revision = await self.overriding.set(
                connection, org_id, user_id, level=Level(level), notes="because",
                expires_at=expires_at, performed_by="boss", if_revision=None,
            )  # fmt: skip
        self.oracle.set_override(org_id, user_id, level, "because", "boss", self.now, expires_at)
        return revision

    async def set_override_refused(self, org_id: str, user_id: str) -> None:
        """An override that the state of things does not allow."""
        with pytest.raises(Conflict):
            await self.set_override(org_id, user_id, "at_risk")

    async def clear_override(self, org_id: str, user_id: str) -> int:
        """Clear it here and there."""
        async with transaction(self.pool) as connection:
            revision = await self.overriding.clear(
                connection, org_id, user_id, notes=None, performed_by="boss", if_revision=None
            )
        self.oracle.clear_override(org_id, user_id, self.now)
        return revision

    async def set_thresholds(self, org_id: str, **numbers: int) -> None:
        """Save them here and there."""
        async with transaction(self.pool) as connection:
            current = await thresholds.in_force(connection, org_id)
            saved = await thresholds.save(
                connection, org_id, current._replace(**numbers), base_version=current.version,
                author="boss", note="",
            )  # fmt: skip
        names = Thresholds._fields[:5]
        self.oracle.set_thresholds(org_id, dict(zip(names, saved[:5], strict=True)))

    # Work

    async def evaluate(self) -> int:
        """Evaluate until nobody is due; how many were."""
        evaluated = 0
        while True:
            async with transaction(self.pool) as connection:
                page = await self.evaluating.evaluate_due(connection, 1_000)
            evaluated += page.evaluated
            if not page.taken:
                return evaluated

    def worker(self) -> Daily:
        """Another worker's share in the daily run."""
        return Daily(
            self.pool,
            self.evaluating,
            slot_of=lambda now: latest_slot(CRON, now),
            owner=uuid4(),
            implicit_membership=self.implicit_membership,
            judging=Judging(MODEL_VERSION),
        )

    async def run_daily(self, worker: Daily | None = None) -> Mapping[str, Any] | None:
        """Do what is left of the daily run; the summary if it ended."""
        worker = worker or self.worker()
        summary = None
        while (step := await worker.step()) is not None:
            summary = step.summary or summary
            self._count(step)
        return summary

    def _count(self, step: Step) -> None:
        self.missed_by_clock += step.counts.missed_by_clock

    # What came of it

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """Rows of a query."""
        async with acquired(self.pool) as connection:
            rows: list[asyncpg.Record] = await connection.fetch(statement, *arguments)
        return rows

    async def value(self, statement: str, *arguments: Any) -> Any:
        """The one value of a query."""
        return (await self.fetch(statement, *arguments))[0][0]

    async def execute(self, statement: str, *arguments: Any) -> None:
        """Run one statement."""
        async with acquired(self.pool) as connection:
            await connection.execute(statement, *arguments)

    async def levels(self) -> dict[tuple[str, str], str]:
        """(organisation, user) -> the level shown now."""
        return {(row[0], row[1]): row[2] for row in await self.fetch(SELECT_LEVELS)}

    async def level(self, org_id: str, user_id: str) -> str | None:
        """The level shown of one member now."""
        return (await self.levels()).get((org_id, user_id))

    async def history(self) -> list[dict[str, Any]]:
        """All changes of level, member by member."""
        return [dict(row) for row in await self.fetch(SELECT_HISTORY)]

    def expected(self) -> dict[tuple[str, str], str]:
        """What the oracle says that `levels` is, but for suspended organisations."""
        found = {}
        for member in self.oracle.members():
            level = self.oracle.shown_level(*member, self.now)
            if level is not None:
                found[member] = level
        return found


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def body_of(record: InputRecord) -> dict[str, Any]:
    """What is in a record that may be anything; empty if it is no JSON object."""
    try:
        body = json.loads(record.value or b"")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


@asynccontextmanager
async def simulation(
    database: str, now: datetime, *, implicit_membership: bool = True, connections: int = 4
) -> AsyncIterator[Simulation]:
    """A simulation on a database of its own, which shows `now`."""
    settings = load_settings({"DATABASE_URL": database})
    pool = await open_pool(settings, purpose="test", size=connections, prepare=prepare)
    try:
        made = Simulation(pool, now, implicit_membership=implicit_membership)
        await made.set_clock(now)
        yield made
    finally:
        pool.terminate()
