"""The daily run: once per slot, by whoever is there, honest, cheap on quiet days, hard to stop."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db import daily, run_pages, runs, survey
from db.daily import Daily, Step
from db.due_scope import take_of
from db.evaluating import Evaluating
from db.pool import acquired, transaction
from db.survey import SURVEY_MANY_WINDOWS, SURVEY_ONE_WINDOW, Judging
from service.classifier.templates import MODEL_VERSION
from service.schedule import latest_slot
from tests.command import ROOT
from tests.oracle import check_history
from tests.simulation import Simulation, simulation

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SLOT = datetime(2026, 6, 3, 4, tzinfo=UTC)
ORG = "club"
BLOCK = 1 << survey.BLOCK_BITS

FAIL = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'no writing here'; END $$;
CREATE TRIGGER fail BEFORE UPDATE ON engagement FOR EACH ROW
    WHEN (NEW.org_id = 'bad') EXECUTE FUNCTION fail()"""


def days(number: float) -> timedelta:
    return timedelta(days=number)


async def members(world: Simulation, org: str, number: int, *, ages: tuple[int, ...]) -> None:
    """So many who joined long ago and came to events of these ages in days."""
    users = [f"user{i:04d}" for i in range(number)]
    await world.apply(
        world.record(
            "membership", org_id=org, user_id=user, status="active", joined_at=NOW - days(400)
        )
        for user in users
    )
    await world.apply(
        world.record(
            "attendance", org_id=org, user_id=user, event_id=f"e{age}", status="attended",
            occurred_at=NOW - days(age),
        )
        for user in users
        for age in ages
    )  # fmt: skip
    await world.evaluate()


async def runs_of(world: Simulation) -> list[runs.RunStatus]:
    async with acquired(world.pool) as connection:
        return await runs.latest(connection, 20)


async def quiet(world: Simulation) -> None:
    """The last run found nothing to say."""
    assert (await runs_of(world))[0].summary["changed"] == 0


# ------------------------------------------------------------------------------------- slots


@pytest.mark.parametrize(
    ("now", "slot"),
    [
        ("2026-06-02T04:00:00+00:00", "2026-06-02T04:00:00+00:00"),
        ("2026-06-02T03:59:59.999999+00:00", "2026-06-01T04:00:00+00:00"),
        ("2026-06-02T04:00:00.000001+00:00", "2026-06-02T04:00:00+00:00"),
        ("2026-03-29T04:30:00+00:00", "2026-03-29T04:00:00+00:00"),  # clocks go forward
        ("2026-10-25T03:30:00+00:00", "2026-10-24T04:00:00+00:00"),  # and back
        ("2028-02-29T23:00:00+00:00", "2028-02-29T04:00:00+00:00"),
        ("2028-03-01T03:00:00+00:00", "2028-02-29T04:00:00+00:00"),
    ],
)
def test_the_latest_slot(now: str, slot: str) -> None:
    found = latest_slot("0 4 * * *", datetime.fromisoformat(now))
    assert found == datetime.fromisoformat(slot)


async def test_first_start_runs_none_then_one_per_slot_whoever_tries(database: str) -> None:
    async with simulation(database, SLOT - timedelta(seconds=1), connections=8) as world:
        await members(world, ORG, 3, ages=(5,))
        assert await world.run_daily() is None
        assert await runs_of(world) == []
        await world.set_clock(SLOT + timedelta(seconds=1))
        found = await asyncio.gather(*(world.run_daily() for _ in range(6)))
        assert len([summary for summary in found if summary is not None]) == 1
        assert [run.slot for run in await runs_of(world)] == [SLOT]
        # A restart within the day starts nothing.
        assert await world.run_daily() is None
        await world.advance(days(1))
        assert await world.run_daily() is not None
        assert len(await runs_of(world)) == 2


async def test_starting_right_after_a_slot_runs_none(database: str) -> None:
    async with simulation(database, SLOT + timedelta(seconds=1)) as world:
        await members(world, ORG, 1, ages=(5,))
        assert await world.run_daily() is None
        assert await runs_of(world) == []


async def test_after_downtime_only_the_latest_missed_slot_is_run(database: str) -> None:
    async with simulation(database, NOW) as world:
        await members(world, ORG, 3, ages=(5,))
        await world.run_daily()
        await world.set_clock(SLOT + days(9.5))
        await world.run_daily()
        assert [run.slot for run in await runs_of(world)] == [SLOT + days(9)]


async def test_what_an_older_run_left_is_done_by_the_next(database: str) -> None:
    async with simulation(database, NOW) as world:
        await members(world, ORG, 3, ages=(5,))
        await world.run_daily()
        await world.set_clock(SLOT)
        assert await world.worker().step() is not None  # a survey, and then it died
        await world.advance(days(1))
        assert await world.run_daily() is not None
        assert [(r.slot, r.status) for r in await runs_of(world)] == [
            (SLOT + days(1), "done"),
            (SLOT, "superseded"),
        ]


# ------------------------------------------------------------------------------------- quiet


async def test_a_quiet_day_writes_no_row_and_no_message(database: str) -> None:
    async with simulation(database, NOW) as world:
        await members(world, ORG, 40, ages=(5, 10))
        await members(world, "other", 10, ages=())
        await world.run_daily()
        await world.execute("DELETE FROM outbox")
        rows = "SELECT ctid, xmin, * FROM engagement ORDER BY member_id"
        before = [tuple(r) for r in await world.fetch(rows)]
        for number in range(3):
            await world.set_clock(SLOT + days(number))
            summary = await world.run_daily()
            assert summary is not None
            assert (summary["members"], summary["evaluated"]) == (50, 0)
            assert (summary["organizations"], summary["changed"]) == (2, 0)
            for view in ("member_engagement", "member_signals"):
                found = await world.fetch(f"SELECT DISTINCT computed_at FROM {view}")
                assert [r[0] for r in found] == [world.now]
        assert [tuple(r) for r in await world.fetch(rows)] == before
        assert await world.value("SELECT count(*) FROM outbox") == 0


async def test_members_evaluated_within_the_day_are_left_alone(database: str) -> None:
    async with simulation(database, NOW) as world:
        await members(world, ORG, 5, ages=(5,))
        await world.run_daily()
        await world.set_clock(SLOT - timedelta(hours=22))
        await world.attend(ORG, "user0001", world.now)
        await world.evaluate()
        await world.set_clock(SLOT)
        summary = await world.run_daily()
        assert summary is not None
        assert summary["members"] == 4
        row = await world.fetch("SELECT computed_at FROM member_engagement WHERE user_id = $1",
                                "user0001")  # fmt: skip
        assert row[0][0] == SLOT  # confirmed with its block all the same


async def test_the_latest_of_row_and_confirmation_counts(database: str) -> None:
    async with simulation(database, NOW) as world:
        await members(world, ORG, 2, ages=(5,))
        await world.run_daily()
        await world.set_clock(SLOT)
        await world.run_daily()
        await world.advance(timedelta(hours=3))
        await world.attend(ORG, "user0000", world.now)
        await world.evaluate()
        found = await world.fetch("SELECT user_id, computed_at FROM member_engagement ORDER BY 1")
        assert [tuple(r) for r in found] == [("user0000", world.now), ("user0001", SLOT)]


# ------------------------------------------------------------------------------------ honest

TAMPER = {
    "a fact gone": "DELETE FROM attendance_fact WHERE member_id = 1",
    "a status": "UPDATE attendance_fact SET status = 'absent' WHERE member_id = 1",
    "a date": "UPDATE attendance_fact SET occurred_at = occurred_at - interval '100 days'",
    "a membership": "UPDATE membership_fact SET joined_at = now() WHERE member_id = 1",
    "a count": "UPDATE engagement SET events_attended_90d = 7 WHERE member_id = 1",
    "a level": "UPDATE engagement SET level = 'inactive', computed_level = 'inactive', "
    "rules_level = 'inactive', reason = 'no_activity', level_since = level_since "
    "WHERE member_id = 1",
}


@pytest.mark.parametrize("what", TAMPER)
async def test_it_recomputes_from_the_facts(database: str, what: str) -> None:
    """Somebody changes a row behind the back of everything: nobody is due, and yet it is found."""
    async with simulation(database, NOW) as world:
        await members(world, ORG, 3, ages=(5,))
        await world.run_daily()
        await world.execute(TAMPER[what].replace("now()", "engagement_now()"))
        assert await world.evaluate() == 0
        await world.set_clock(SLOT)
        summary = await world.run_daily()
        assert summary is not None
        assert summary["evaluated"] >= 1
        assert world.missed_by_clock == summary["missed_by_clock"] >= 1
        async with acquired(world.pool) as connection:
            left = await survey_all(connection)
        assert left == []


async def test_a_clock_that_was_lost_is_a_defect_that_is_mended(database: str) -> None:
    async with simulation(database, NOW) as world:
        await members(world, ORG, 3, ages=(85,))
        await world.run_daily()
        await world.execute(
            "UPDATE engagement SET wake_at = NULL, next_change_at = NULL WHERE member_id = 1"
        )
        await world.set_clock(SLOT + days(6))
        assert await world.evaluate() == 2
        summary = await world.run_daily()
        assert summary is not None
        assert (summary["changed"], summary["missed_by_clock"]) == (1, 1)
        assert await world.levels() == world.expected()


async def test_who_is_due_but_not_yet_evaluated_is_no_defect(database: str) -> None:
    async with simulation(database, NOW) as world:
        await members(world, ORG, 3, ages=(85,))
        await world.run_daily()
        await world.set_clock(SLOT + days(6))
        await world.attend(ORG, "user0000", world.now)
        summary = await world.run_daily()
        assert summary is not None
        assert (summary["changed"], summary["missed_by_clock"]) == (2, 0)
        causes = Counter(r["cause"] for r in await world.history())
        assert causes["time"] == 2


async def test_computed_at_moves_for_those_alone_who_were_recomputed(database: str) -> None:
    computed = "SELECT array_agg(DISTINCT computed_at) FROM member_engagement"
    async with simulation(database, NOW) as world:
        await members(world, ORG, 3, ages=(5,))
        await world.run_daily()
        lately = SLOT + timedelta(hours=2)
        await world.set_clock(lately)
        await world.set_thresholds(ORG, highly_engaged_min_events=5)
        await world.evaluate()
        await world.set_clock(SLOT + days(1))
        summary = await world.run_daily()
        assert summary is not None
        assert (summary["members"], await world.value(computed)) == (0, [lately])


async def test_a_run_looks_at_everybody_whose_computed_at_it_moves(database: str) -> None:
    """Also at who was evaluated a moment ago, and changed by nothing that tells."""
    async with simulation(database, NOW) as world:
        await members(world, ORG, 3, ages=(5,))
        await world.run_daily()
        await world.set_clock(SLOT + timedelta(hours=2))
        await world.attend(ORG, "user0000", world.now)
        await world.evaluate()
        await world.execute("DELETE FROM attendance_fact WHERE member_id = 1")
        await world.set_clock(SLOT + days(1))
        summary = await world.run_daily()
        assert summary is not None
        assert (summary["members"], summary["changed"]) == (2, 1)
        counted = "SELECT events_attended_90d FROM member_engagement WHERE engagement_id = 1"
        assert await world.value(counted) == 0


async def survey_all(connection: Any) -> list[int]:
    found = await survey.survey(
        connection, 0, stale_before=NOW + days(10_000), implicit_membership=True,
        judging=Judging(MODEL_VERSION),
    )  # fmt: skip
    return list(found.differing)


@pytest.mark.parametrize("many_windows", [False, True])
async def test_the_survey_says_what_an_evaluation_says(
    database: str, monkeypatch: pytest.MonkeyPatch, *, many_windows: bool
) -> None:
    """At random instants: whom it passes over has nothing to publish; it finds all others."""
    rng = random.Random(11)
    if many_windows:
        # Also where one would do, both forms must say the same.
        monkeypatch.setattr(survey, "SURVEY_ONE_WINDOW", SURVEY_MANY_WINDOWS)
    else:
        assert SURVEY_ONE_WINDOW != SURVEY_MANY_WINDOWS
    async with simulation(database, NOW) as world:
        if many_windows:
            await world.set_thresholds("org1", activity_window_days=30, inactive_after_days=60)
            await world.set_thresholds("org2", highly_engaged_min_events=2, new_member_days=10)
        for number in range(150):
            await _random_member(world, rng, f"org{number % 3}", f"user{number}")
        await world.send("organization", org_id="org0", name="x", status="active")
        await world.evaluate()
        assert await world.levels() == world.expected()
        for at in sorted(rng.uniform(0, 260) for _ in range(12)):
            await world.set_clock(NOW + days(at))
            rows = await world.fetch("SELECT member_id, org_id FROM member")
            async with acquired(world.pool) as connection:
                differing = set(await survey_all(connection))
                _, results = await world.evaluating.foresee(connection, {r[0]: r[1] for r in rows})
            moved = {
                member_id
                for member_id, result in results.items()
                if any(
                    p.change is not None
                    or p.published.signals != result.member.standing.published.signals
                    for p in result.outcome.publications
                )
            }
            assert moved <= differing
            untouched = set(results) - differing
            assert not [m for m in untouched if results[m].outcome.publications]


async def _random_member(world: Simulation, rng: random.Random, org: str, user: str) -> None:
    def some_time() -> datetime:
        return NOW - days(
            rng.choice([rng.uniform(-0.9, 5), rng.uniform(0, 100), rng.uniform(0, 300)])
        )

    if rng.random() < 0.7:
        status = "left" if rng.random() < 0.1 else "active"
        await world.send(
            "membership", org_id=org, user_id=user, status=status,
            joined_at=min(some_time(), NOW + days(0.9)),
        )  # fmt: skip
    for number in range(rng.randint(0, 5)):
        await world.send(
            "attendance", org_id=org, user_id=user, event_id=f"e{number}",
            status=rng.choice(["attended", "attended", "partial", "absent"]),
            occurred_at=some_time(),
        )  # fmt: skip
    for number in range(rng.randint(0, 2)):
        await world.send(
            "rsvp", org_id=org, user_id=user, event_id=f"e{number}",
            response=rng.choice(["going", "declined"]), responded_at=some_time(),
        )  # fmt: skip
    if rng.random() < 0.3:
        actor = rng.choice(["member", "admin"])
        await world.send("profile-update", user_id=user, updated_at=some_time(), actor=actor)


# --------------------------------------------------------------------------- what it leaves out


async def test_suspended_organisations_are_left_out_and_their_time_stands_still(
    database: str,
) -> None:
    async with simulation(database, NOW) as world:
        await members(world, ORG, 3, ages=(5,))
        await members(world, "other", 2, ages=(5,))
        await world.run_daily()
        await world.set_clock(SLOT)
        await world.run_daily()
        await world.send("organization", org_id=ORG, name="x", status="suspended")
        await world.evaluate()
        for number in (1, 2):
            await world.set_clock(SLOT + days(number))
            summary = await world.run_daily()
            assert summary is not None
            assert (summary["members"], summary["organizations"]) == (2, 1)
        found = await world.fetch("SELECT DISTINCT org_id, computed_at FROM member_engagement")
        assert {(r[0], r[1]) for r in found} == {(ORG, SLOT), ("other", SLOT + days(2))}
        await world.send("organization", org_id=ORG, name="x", status="active")
        await world.evaluate()
        await world.set_clock(SLOT + days(3))
        await world.run_daily()
        found = await world.fetch("SELECT DISTINCT computed_at FROM member_engagement")
        assert [r[0] for r in found] == [world.now]
        assert await world.value("SELECT count(*) FROM engagement_confirmation_exception") == 0


async def test_a_failing_organisation_stops_nobody_and_is_tried_again(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_pages, "FIRST_RETRY", timedelta(milliseconds=50))
    async with simulation(database, NOW) as world:
        for org in ("bad", "good", "fine"):
            await members(world, org, 4, ages=(85,))
        await world.run_daily()
        await world.execute(FAIL)
        await world.set_clock(SLOT + days(6))
        worker = world.worker()
        while await worker.step() is not None:
            pass
        # The others are done; the one that fails waits, and the run with it.
        levels = await world.levels()
        assert {level for (org, _), level in levels.items() if org != "bad"} == {"at_risk"}
        assert {level for (org, _), level in levels.items() if org == "bad"} == {"moderate"}
        (run,) = await runs_of(world)
        assert run.status == "running"
        async with acquired(world.pool) as connection:
            (failure,) = (await run_pages.failures(connection, run.slot)).values()
        assert (failure.org_id, failure.attempts) == ("bad", 1)
        assert "no writing here" in failure.error
        await world.execute("DROP TRIGGER fail ON engagement")
        summary = await _until_ended(world)
        assert (summary["failed"], summary["changed"]) == (0, 12)
        assert await world.levels() == world.expected()
        async with acquired(world.pool) as connection:
            assert await run_pages.failures(connection, run.slot) == {}


async def test_who_fails_to_the_end_is_counted_and_not_confirmed(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_pages, "FIRST_RETRY", timedelta(milliseconds=20))
    async with simulation(database, NOW) as world:
        for org in ("bad", "good"):
            await members(world, org, 4, ages=(85,))
        await world.run_daily()
        await world.set_clock(SLOT)
        await world.run_daily()
        await world.execute(FAIL)
        await world.set_clock(SLOT + days(6))
        summary = await _until_ended(world)
        assert (summary["failed"], summary["failed_organizations"]) == (4, 1)
        assert summary["changed"] == 4
        run = (await runs_of(world))[0]
        assert run.status == "incomplete"
        found = await world.fetch("SELECT DISTINCT org_id, computed_at FROM member_engagement")
        assert {(r[0], r[1]) for r in found} == {("bad", SLOT), ("good", world.now)}
        # The next day it is well again.
        await world.execute("DROP TRIGGER fail ON engagement")
        await world.advance(days(1))
        assert (await _until_ended(world))["failed"] == 0
        assert await world.levels() == world.expected()
        assert await world.value("SELECT count(*) FROM engagement_confirmation_exception") == 0


async def test_a_fact_that_comes_in_between_was_not_missed_by_the_clock(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking for marks and reading facts: the mark is there by then."""
    async with simulation(database, NOW) as world:
        await members(world, ORG, 2, ages=(5,))
        await world.run_daily()
        await world.set_clock(SLOT)
        # So that both are looked at one by one.
        await world.execute("UPDATE engagement SET last_rsvp_at = $1", NOW)
        came = False

        async def take_first(connection: Any, ids: Any, *, force: bool) -> Any:
            nonlocal came
            found = await take_of(connection, ids, force=force)
            if not came:
                came = True
                await world.send(
                    "attendance", org_id=ORG, user_id="user0000", event_id="another",
                    status="attended", occurred_at=world.now - days(1),
                )  # fmt: skip
            return found

        monkeypatch.setattr(daily, "take_of", take_first)
        summary = await world.run_daily()
        assert summary is not None
        assert (summary["evaluated"], summary["missed_by_clock"]) == (2, 0)


async def _until_ended(world: Simulation) -> Any:
    for _ in range(400):
        summary = await world.run_daily()
        if summary is not None:
            return summary
        await asyncio.sleep(0.05)
    message = "the run does not end"
    raise AssertionError(message)


# ------------------------------------------------------------------------------------ killed


@pytest.mark.timeout(120)
async def test_three_workers_killed_in_the_middle(database: str) -> None:
    """One run, every member evaluated, no second change record."""
    async with simulation(database, NOW) as world:
        await members(world, ORG, 300, ages=(85,))
        # More than one page: members of a second block.
        await world.execute(f"ALTER TABLE member ALTER COLUMN member_id RESTART WITH {BLOCK + 5}")
        await members(world, "other", 300, ages=(80,))
        await world.run_daily()
        await world.set_clock(SLOT + days(12))
        # Nine steps at most until the last is killed, of twelve and more that the run takes.
        first = [_worker(database, steps=2 + number) for number in range(3)]
        for number, process in enumerate(first):
            assert process.stdout is not None
            for _ in range(1 + number):
                assert await asyncio.to_thread(process.stdout.readline) == "step\n"
            process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(process.communicate, timeout=10)
        (run,) = await runs_of(world)
        assert run.status == "running"
        second = [_worker(database) for _ in range(3)]
        for process in second:
            said, _ = await asyncio.to_thread(process.communicate, timeout=90)
            assert process.returncode == 0, said
        (run,) = await runs_of(world)
        assert (run.status, run.pages, run.pages_done) == ("done", 2, 2)
        assert run.summary["members"] == 600
        assert run.summary["changed"] == 600
        levels = await world.levels()
        assert levels == world.expected()
        assert set(levels.values()) == {"at_risk"}
        history = await world.history()
        assert check_history(history, levels) == []
        assert len(history) == 2 * 600
        found = await world.fetch("SELECT DISTINCT computed_at FROM member_engagement")
        assert [r[0] for r in found] == [world.now]


class _Gated(Evaluating):
    """Evaluates, and then waits to be let on before anything is committed."""

    def __init__(self, evaluating: Evaluating) -> None:
        super().__init__(evaluating.reader, evaluating.judge)
        self.evaluated, self.go_on = asyncio.Event(), asyncio.Event()

    async def evaluate_each(self, *arguments: Any) -> Any:
        found = await super().evaluate_each(*arguments)
        self.evaluated.set()
        await self.go_on.wait()
        return found


async def surveyed(world: Simulation) -> tuple[Daily, datetime]:
    """A worker that has surveyed the page of 30 members who all change, and the slot."""
    await members(world, ORG, 30, ages=(85,))
    await world.run_daily()
    await world.set_clock(SLOT + days(12))
    worker = world.worker()
    step = await worker.step()
    assert step is not None
    assert step.recomputed == 30
    return worker, step.slot


@pytest.mark.parametrize("apart", [False, True])
async def test_a_piece_that_takes_longer_than_its_lease_is_counted(
    database: str, monkeypatch: pytest.MonkeyPatch, *, apart: bool
) -> None:
    """Nobody else begins with what a worker is at, however slow; so its counts find their row."""
    monkeypatch.setattr(run_pages, "LEASE", timedelta(0))
    async with simulation(database, NOW) as world:
        slow, slot = await surveyed(world)
        if apart:
            async with acquired(world.pool) as connection:
                await run_pages.count_failure(connection, slot, "another", "no")
        gate = slow._evaluating = _Gated(world.evaluating)
        working = asyncio.create_task(slow.step())
        await gate.evaluated.wait()
        try:
            assert await world.run_daily() is None
        finally:
            gate.go_on.set()
        await working
        await world.run_daily()
        (run,) = await runs_of(world)
        assert (run.status, run.evaluated, run.changed) == ("done", 30, 30)
        assert run.summary["changed"] == 30
        assert await world.worker().step() is None


async def test_what_was_taken_by_another_since_is_left_to_it(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_pages, "LEASE", timedelta(0))
    async with simulation(database, NOW) as world:
        slow, slot = await surveyed(world)
        async with transaction(world.pool) as connection:
            taken = await run_pages.take_chunk(connection, slot, slow._owner)
        assert taken is not None
        summary = await world.run_daily()
        assert summary is not None
        assert (summary["evaluated"], summary["changed"]) == (30, 30)
        assert await slow._evaluate(taken) == Step(taken.slot)
        assert (await runs_of(world))[0].evaluated == 30


def _worker(database: str, *, steps: int | None = None) -> subprocess.Popen[str]:
    limit = [] if steps is None else [str(steps)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.daily_worker", database, *limit],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
