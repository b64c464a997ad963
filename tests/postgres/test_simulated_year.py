"""A year of a made-up population, day by day and in jumps, with administrators at work.

On no day is anybody at a level other than the oracle's, and the daily run finds nothing that the
clocks of the members had missed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from service.demo.input_record import InputRecord
from service.demo.population import Population, Rates
from service.instants import parse_instant
from tests.oracle import check_history
from tests.simulation import Simulation, body_of, simulation

# A leap day, and both changes of clocks, which UTC does not know.
STARTS_AT = datetime(2027, 9, 1, tzinfo=UTC)
WARM_UP = timedelta(days=40)
LEVELS = ("highly_engaged", "moderate", "at_risk", "new", "inactive")
SLOT_HOUR = timedelta(hours=4)

Member = tuple[str, str]


def as_sent(records: Iterator[InputRecord]) -> Iterator[tuple[datetime, InputRecord]]:
    """Records with the instant of sending: none is sent before it was recorded."""
    sent_at = datetime.min.replace(tzinfo=UTC)
    for record in records:
        try:
            recorded_at = parse_instant(body_of(record).get("recorded_at"))
        except ValueError:
            recorded_at = sent_at
        if recorded_at.tzinfo is not None and recorded_at.year < 2100:
            sent_at = max(sent_at, recorded_at)
        yield sent_at, record


class Year:
    """Drives a simulation through time, with what is sent and done on the way."""

    def __init__(self, world: Simulation, seed: int, members: int, days: int) -> None:
        self.world = world
        self.rng = random.Random(seed)
        population = Population(
            seed, organisations=4, members=members, days=days + 40,
            ends_at=STARTS_AT + timedelta(days=days), rates=Rates(erasures=0.03),
        )  # fmt: skip
        self.records = as_sent(population.records())
        self.waiting: tuple[datetime, InputRecord] | None = None
        self.suspended: set[str] = set()
        self.found_by_run = 0
        # (level, until when it stays if nothing happens)
        self._expected: dict[Member, tuple[str | None, datetime | None]] = {}

    async def send_until(self, at: datetime) -> None:
        """Let everything arrive that was sent until then; the clock shows `at`."""
        await self.world.set_clock(at)
        batch = []
        while True:
            self.waiting = self.waiting or next(self.records, None)
            if self.waiting is None or self.waiting[0] > at:
                break
            batch.append(self.waiting[1])
            self.waiting = None
        for record in batch:
            self._forget_about(record)
        batch.sort(key=lambda record: record.kind)
        await self.world.apply(batch)

    def _forget_about(self, record: InputRecord) -> None:
        key = (record.key or b"").decode("utf-8", "replace")
        body = body_of(record)
        users = {body.get("user_id"), key.rpartition(":")[2]}
        orgs = {body.get("org_id")} if record.kind == "organization" else set()
        for member in [m for m in self._expected if m[1] in users or m[0] in orgs]:
            del self._expected[member]

    def _forget_organization(self, org_id: str) -> None:
        for member in [m for m in self._expected if m[0] == org_id]:
            del self._expected[member]

    async def check(self) -> None:
        """Everybody is at the level that the oracle says."""
        now = self.world.now
        expected = {}
        for member in self.world.oracle.members():
            if member[0] in self.suspended:
                continue
            level, until = self._expected.get(member, (None, now))
            if until is not None and until <= now:
                found = self.world.oracle.evaluate(*member, now, with_override=True)
                level, until = found["level"], found["next_level_change_at"]
                self._expected[member] = (level, until)
            if level is not None:
                expected[member] = level
        shown = await self.world.levels()
        assert {m: level for m, level in shown.items() if m[0] not in self.suspended} == expected

    async def run_daily(self) -> None:
        """The daily run, by a worker that has just started."""
        summary = await self.world.run_daily(self.world.worker())
        if summary is not None:
            self.found_by_run += summary["changed"]
            assert summary["failed"] == 0
        assert self.world.missed_by_clock == 0

    async def administer(self) -> None:
        """Something that an administrator may do on such a day."""
        rng, world = self.rng, self.world
        shown = sorted(m for m in await world.levels() if m[0] not in self.suspended)
        if rng.random() < 0.5 and shown:
            member = rng.choice(shown)
            expires_at = None
            if rng.random() < 0.8:
                expires_at = world.now + timedelta(hours=rng.uniform(1, 600))
            await world.set_override(*member, rng.choice(LEVELS), expires_at)
            self._expected.pop(member, None)
        overridden = [m for m in shown if world.oracle.override(*m, world.now) is not None]
        if rng.random() < 0.1 and overridden:
            member = rng.choice(overridden)
            await world.clear_override(*member)
            self._expected.pop(member, None)
        orgs = sorted({org for org, _ in shown})
        if rng.random() < 0.03 and orgs:
            org = rng.choice(orgs)
            window = rng.choice([30, 60, 90, 120])
            await world.set_thresholds(
                org, activity_window_days=window, inactive_after_days=window + rng.randint(0, 90),
                new_member_days=rng.choice([0, 30, 60]),
                highly_engaged_min_events=rng.randint(3, 5),
                moderate_min_events=rng.randint(1, 2),
            )  # fmt: skip
            self._forget_organization(org)
        await self._turn_organizations()

    async def _turn_organizations(self) -> None:
        rng, world = self.rng, self.world
        for org in [o for o in sorted(self.suspended) if rng.random() < 0.2]:
            self.suspended.discard(org)
            await world.send("organization", org_id=org, name=org, status="active")
            self._forget_organization(org)
        orgs = sorted({org for org, _ in world.oracle.members()} - self.suspended)
        if rng.random() < 0.02 and orgs:
            org = rng.choice(orgs)
            self.suspended.add(org)
            await world.send("organization", org_id=org, name=org, status="suspended")

    async def finish(self) -> None:
        """At the end: all histories are whole, and a whole check without what was remembered."""
        for org in sorted(self.suspended):
            await self.world.send("organization", org_id=org, name=org, status="active")
        self.suspended.clear()
        self._expected.clear()
        await self.world.evaluate()
        await self.check()
        levels = await self.world.levels()
        assert check_history(await self.world.history(), levels) == []


async def day_by_day(database: str, seed: int, members: int, days: int) -> None:
    async with simulation(database, STARTS_AT - WARM_UP) as world:
        year = Year(world, seed, members, days)
        await year.run_daily()
        await year.send_until(STARTS_AT)
        await world.evaluate()
        # The one slot that is caught up of those since the job was seen first.
        await year.run_daily()
        await year.check()
        for number in range(days):
            midnight = STARTS_AT + timedelta(days=number)
            # A worker that starts a second before the slot runs nothing.
            await world.set_clock(midnight + SLOT_HOUR - timedelta(seconds=1))
            await world.evaluate()
            runs = await world.value("SELECT count(*) FROM batch_run")
            await year.run_daily()
            assert await world.value("SELECT count(*) FROM batch_run") == runs
            await world.set_clock(midnight + SLOT_HOUR + timedelta(seconds=1))
            await world.evaluate()
            before = year.found_by_run
            await year.run_daily()
            assert await world.value("SELECT count(*) FROM batch_run") == runs + 1
            # Whoever was due had been evaluated: the run found nobody at all.
            assert year.found_by_run == before
            await year.check()
            await year.send_until(midnight + timedelta(hours=year.rng.uniform(5, 23.9)))
            await world.evaluate()
            await year.check()
            await year.administer()
            await world.evaluate()
            await year.check()
        await year.finish()
        assert await world.value("SELECT count(*) FROM batch_run") == days + 1


async def in_jumps(database: str, seed: int, members: int, days: int) -> None:
    async with simulation(database, STARTS_AT - WARM_UP) as world:
        year = Year(world, seed, members, days)
        await year.run_daily()
        at = STARTS_AT
        while at < STARTS_AT + timedelta(days=days):
            await year.send_until(at)
            # After downtime either may come first; neither finds what nobody knew of.
            if year.rng.random() < 0.5:
                await year.run_daily()
            await world.evaluate()
            await year.check()
            await year.run_daily()
            await year.administer()
            await world.evaluate()
            await year.check()
            at = at + timedelta(days=year.rng.choice([0.01, 1, 3, 10, 40]) * year.rng.random())
        await year.finish()


@pytest.mark.timeout(300)
async def test_two_months_day_by_day(database: str) -> None:
    await day_by_day(database, seed=5, members=250, days=60)


@pytest.mark.timeout(300)
async def test_a_year_in_jumps(database: str) -> None:
    await in_jumps(database, seed=6, members=250, days=366)


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
async def test_a_year_of_two_thousand_members(database: str) -> None:
    await day_by_day(database, seed=1, members=2_000, days=366)


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
async def test_a_year_of_two_thousand_members_in_jumps(database: str) -> None:
    await in_jumps(database, seed=2, members=2_000, days=366)
