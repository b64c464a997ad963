"""Input that is bad, repeated, or in any order. (Faults 13 to 16)"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import UTC, datetime

import pytest

from service.demo.bad_records import BAD_VALUES
from service.demo.input_record import InputRecord
from service.demo.population import Population, Rates
from tests.faults.conftest import Measured, SceneMaker, Trial
from tests.faults.scene import Scene

pytestmark = pytest.mark.timeout(240)

REFUSE_SOME = """
CREATE FUNCTION test_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.event_id LIKE 'refused-%' THEN
        RAISE EXCEPTION 'the test refuses it' USING ERRCODE = '22023';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER test_refuse BEFORE INSERT ON attendance_fact
    FOR EACH ROW EXECUTE FUNCTION test_refuse()"""


def hostile(body: dict[str, str]) -> Iterator[InputRecord]:
    """One record of every kind that can never be applied, and some that look like it."""

    def attendance(value: bytes | None, *headers: tuple[str, bytes]) -> InputRecord:
        return InputRecord("attendance", key, value, headers)

    def changed(**fields: object) -> bytes:
        return json.dumps({**body, **fields}).encode()

    key = f"{body['org_id']}:{body['user_id']}".encode()
    for _, spoil in BAD_VALUES:
        yield attendance(spoil(body))
    for value in (b"null", b"true", b"[]", b'"text"', b"\xff\xfe", b"[" * 60_000, b"{", b"1e999"):
        yield attendance(value)
    yield attendance(changed(padding="x" * 900_000))
    yield attendance(b"x" * 1_048_000)
    yield attendance(changed(event_id="a\0b"))
    yield attendance(changed(user_id="\ud800"))
    yield attendance(changed(recorded_at="2026-02-30T00:00:00Z"))
    yield attendance(changed(occurred_at="0001-01-01T00:00:00+14:00"))
    yield attendance(b"{}", ("odd\0name", b"\0\xff"), ("twice", b"1"), ("twice", b"2"))
    yield attendance(changed(event_id="refused-by-the-database", id="refused"))
    yield InputRecord("attendance", None, b"no key")
    yield InputRecord("attendance", None, None)
    yield InputRecord("attendance", b"\xff", b"no text")
    name = {"id": "n", "org_id": "odd", "status": "active", "recorded_at": body["recorded_at"]}
    yield InputRecord("organization", b"odd", json.dumps({**name, "name": "N\0"}).encode())
    yield InputRecord("organization", b"odd", json.dumps({**name, "name": "N\ud800"}).encode())
    for tombstone in (None, b"", b"club", b"a:b:c", b"a:\xff", b":"):
        yield InputRecord("membership", tombstone, None)
    # These are good.
    yield InputRecord("attendance", None, changed(id="without-key", event_id="without-key"))
    yield InputRecord("attendance", b"\0\xff", changed(id="odd-key", event_id="odd-key"))
    yield InputRecord("organization", b"odd", json.dumps({**name, "name": "Ødd 🎷 '\"\\"}).encode())


def among(
    good: Iterable[InputRecord], bad: Iterable[InputRecord], every: int
) -> Iterator[InputRecord]:
    """A bad one after every so many good ones, and the rest of the bad at the end."""
    waiting = iter(bad)
    for number, record in enumerate(good, 1):
        yield record
        if number % every == 0:
            yield from itertools.islice(waiting, 1)
    yield from waiting


def is_refused(kind: str, value: bytes) -> bool:
    """Whether REFUSE_SOME stops this record."""
    return kind == "attendance" and b'"refused-by-the-database"' in value


async def test_fault_13_bad_records_among_good_ones(
    scene: SceneMaker, trial: Trial, measured: Measured
) -> None:
    async with scene() as it:
        await it.execute(REFUSE_SOME)
        workers = await it.ready_workers("one", "two")
        body = json.loads(next(trial.load(9)).value or b"")
        # Several rounds: about one in a thousand, and each kind more than once.
        rounds = max(2, trial.records // 40_000)
        bad = [record for _ in range(rounds) for record in hostile(body)]
        began = time.monotonic()
        await it.send(among(trial.load(), bad, trial.records // len(bad) // 2))
        report = await it.finish(rejects=is_refused)
        measured(13, report, time.monotonic() - began)
        assert all(worker.said("partition_stopped") == 0 for worker in workers)
        codes = {row["code"] for row in await it.fetch("SELECT DISTINCT code FROM dead_letter")}
        assert codes == {
            "too_large", "null_value", "not_json", "schema", "bad_id", "naive_time",
            "future_dated", "rejected",
        }  # fmt: skip


async def test_fault_14_nothing_but_bad_records(
    scene: SceneMaker, trial: Trial, measured: Measured
) -> None:
    async with scene() as it:
        (worker,) = await it.ready_workers("one")
        good = list(itertools.islice(trial.load(), trial.records // 2))
        spoilt = [
            InputRecord(record.kind, record.key, (record.value or b"")[:-1])
            for record in itertools.islice(trial.load(1), 1_000)
        ]
        await it.send([*good, *spoilt, *itertools.islice(trial.load(2), 1_000)])
        await worker.until_said("partition_stopped", 8)
        letters = await it.fetch("SELECT count(*) AS n FROM dead_letter GROUP BY topic, partition")
        assert [row["n"] for row in letters] == [50] * 8
        status, body = await worker.get("/readyz")
        assert (status, "dlq resume" in body) == (503, True)
        assert (await worker.get("/livez"))[0] == 200
        # Other topics go on meanwhile, and a restart does not make it forget.
        await it.send([InputRecord("organization", b"other", ORGANIZATION)])
        await it.until("the other topic", _is_applied(it, "organization"), 10)
        await it.stop_workers()
        await it.worker("two").until_said("partition_stopped", 8)

        async def stopped_or_done() -> bool:
            return bool(await it.value(STOPPED) == len(await it.lagging()))

        # Resumed, it stops again at the next 50; in the end it gets through.
        began = time.monotonic()
        for _ in range(20):
            await it.command("dlq", "resume")
            await it.until("the next stop, or the end", stopped_or_done, 30)
            if not await it.lagging():
                break
        recovery_s = time.monotonic() - began
        report = await it.finish()
        measured(14, report, recovery_s)
        assert report.dead_letters == 1_000


STOPPED = "SELECT count(*) FROM stream_offset WHERE stopped_at IS NOT NULL"
ORGANIZATION = (
    b'{"id":"1","org_id":"other","name":"Other","status":"active",'
    b'"recorded_at":"2026-01-01T00:00:00Z"}'
)


def _is_applied(it: Scene, kind: str) -> Callable[[], Awaitable[bool]]:
    async def applied() -> bool:
        return all(topic != it.topics[kind] for topic, _ in await it.lagging())

    return applied


def elsewhere(record: InputRecord) -> InputRecord:
    """The same record under another key, so in another partition."""
    return record._replace(key=(record.key or b"") + b"!")


async def test_fault_15_everything_three_times(
    scene: SceneMaker, trial: Trial, measured: Measured
) -> None:
    async with scene() as it:
        await it.ready_workers("one", "two")
        once = list(itertools.islice(trial.load(), trial.records // 3))
        await it.send(once)
        await it.until_idle()
        history = await it.value("SELECT count(*) FROM engagement_level_history")
        revisions = await it.value("SELECT sum(revision) FROM engagement")
        began = time.monotonic()
        # At other offsets, and by another key in another partition.
        await it.send(record for one in once for record in (one, elsewhere(one)))
        await it.until_idle()
        recovery_s = time.monotonic() - began
        assert await it.value("SELECT count(*) FROM engagement_level_history") == history
        assert await it.value("SELECT sum(revision) FROM engagement") == revisions
        report = await it.finish()
        measured(15, report, recovery_s)


async def test_fault_16_everything_out_of_order(
    scene: SceneMaker, trial: Trial, measured: Measured
) -> None:
    async with scene() as it:
        await it.ready_workers("one", "two")
        rates = Rates(bad=0.001, clashes=0.01, corrections=0.1)
        population = Population(
            trial.seed, 3, trial.records // 15, 400, ends_at=datetime.now(UTC), rates=rates
        )
        records = [*population.records(), *itertools.islice(trial.load(), trial.records // 4)]
        random.Random(trial.seed).shuffle(records)
        began = time.monotonic()
        await it.send(records)
        report = await it.finish()
        measured(16, report, time.monotonic() - began)
