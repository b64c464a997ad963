"""Small batches of several partitions share a transaction. What is stored does not tell."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import asyncpg
import pytest
from faust.types import TP
from structlog.testing import capture_logs

from db import erasures, intake, plain_batches
from db.member_ids import MemberIds
from db.offsets import Claim
from db.pool import Connection, Pool, acquired, open_pool, transaction
from service.errors import Fenced, OutOfSequence, Retryable
from service.events import InputKind
from service.instants import wire_time
from service.settings import load_settings
from streams import applying
from streams.applying import BatchApplier
from streams.batches import SMALL_BATCH, Batch
from streams.intake import decode_batch
from streams.lanes import Reached
from streams.positions import CheckClaims, Positions

TOPIC, PARTITIONS = "attendance", 6
MEMBERSHIPS = "memberships"
NOW = datetime.now(UTC).replace(microsecond=0)
OFFSETS = "SELECT partition, next_offset FROM stream_offset ORDER BY partition"
# Rows that one transaction has written bear its instant.
TRANSACTIONS = "SELECT count(DISTINCT updated_at) FROM stream_offset WHERE next_offset > 0"
LOSE_MEMBERS = "TRUNCATE member, engagement, attendance_fact, due_batch RESTART IDENTITY CASCADE"
HANG_UP = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name LIKE 'engagement-%' AND datname = current_database()"""
ADD_ABSENCES = """
INSERT INTO attendance_fact (member_id, event_id, status, occurred_at, recorded_at, message_id)
SELECT member_id, 'event-7', 'absent', $1, $1, 'newer' FROM member"""
WAITING = """
SELECT EXISTS (SELECT FROM pg_stat_activity
               WHERE wait_event_type = 'Lock' AND datname = current_database())"""
ADD_ADA = """
WITH ada AS (INSERT INTO member (org_id, user_id) VALUES ('club', 'ada') RETURNING *)
INSERT INTO engagement (member_id, org_id) SELECT member_id, org_id FROM ada"""
FACTS = """
SELECT m.user_id, f.event_id, f.status FROM attendance_fact f JOIN member m USING (member_id)
ORDER BY 1, 2"""


class Record(NamedTuple):
    """What the consumer gives."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    timestamp: int = 0
    headers: Sequence[tuple[str, bytes]] = ()


def record(offset: int, user: str, event: str = "e", **more: str) -> Record:
    body = {
        "id": f"{user}-{event}-{offset}", "org_id": "club", "user_id": user, "event_id": event,
        "status": "attended", "occurred_at": wire_time(NOW), "recorded_at": wire_time(NOW),
    }  # fmt: skip
    return Record(offset, json.dumps(body | more).encode())


def batch(partition: int, *records: Record) -> Batch:
    return Batch(TOPIC, partition, 0, records[-1].offset + 1, records)


class Scene:
    """An applier with all partitions claimed, and a connection to look."""

    def __init__(self, pool: Pool, applier: BatchApplier, connection: asyncpg.Connection) -> None:
        self.pool = pool
        self.applier = applier
        self.connection = connection
        self.claims: dict[int, Claim] = {}

    async def claim(self) -> None:
        tps = [TP(TOPIC, number) for number in range(PARTITIONS)]
        claims = await self.applier.claim(tps, 1)
        self.claims = {tp.partition: claim for tp, claim in claims.items()}

    async def apply(self, *batches: Batch, doubtful: bool = False) -> list[Any]:
        """All at once, as lanes do; what became of each."""
        return await asyncio.gather(
            *(self.applier.apply(self.claims[b.partition], b, doubtful=doubtful) for b in batches),
            return_exceptions=True,
        )

    async def until_it_waits(self, applying: asyncio.Task[Any]) -> None:
        """Until a batch that is under way waits for somebody's lock."""
        async with self.pool.acquire() as onlooker:
            while not await onlooker.fetchval(WAITING):
                assert not applying.done()
                await asyncio.sleep(0.02)

    async def offsets(self) -> dict[int, int]:
        return {row[0]: row[1] for row in await self.connection.fetch(OFFSETS)}

    async def facts(self) -> list[tuple[str, str, str]]:
        return [tuple(row) for row in await self.connection.fetch(FACTS)]


async def _ranges(tps: Collection[TP]) -> Mapping[TP, tuple[int, int]]:
    return dict.fromkeys(tps, (0, 0))


async def _all_hold(claims: Iterable[Claim], _: object) -> dict[TP, Claim]:
    return {TP(claim.topic, claim.partition): claim for claim in claims}


def _unread(check: CheckClaims) -> CheckClaims:
    """There is no broker here that shows the last records."""

    async def unread(claims: Iterable[Claim], ranges: Any) -> dict[TP, Claim]:
        return await check([claim._replace(fingerprint=None) for claim in claims], ranges)

    return unread


def _applier(
    pool: Pool, ids: MemberIds, *, ranges: Any = _ranges, check_claims: CheckClaims = _all_hold
) -> BatchApplier:
    return BatchApplier(
        pool,
        ids,
        kinds={TOPIC: InputKind.ATTENDANCE, MEMBERSHIPS: InputKind.MEMBERSHIP},
        owner=uuid4(),
        max_future_skew=timedelta(minutes=5),
        max_consecutive_failures=100,
        erasure_memory=timedelta(days=30),
        ranges=ranges,
        check_claims=check_claims,
        marked=lambda: None,
    )


@pytest.fixture
async def scene(database: str) -> AsyncIterator[Scene]:
    settings = load_settings({"DATABASE_URL": database})
    ids = MemberIds()
    pool = await open_pool(settings, purpose="test", size=6, prepare=plain_batches.preparing(ids))
    connection = await asyncpg.connect(database)
    made = Scene(pool, _applier(pool, ids), connection)
    await made.claim()
    yield made
    await connection.close()
    pool.terminate()


def everybody(count: int = 1) -> list[Batch]:
    return [
        batch(number, *(record(n, f"user-{number}", f"event-{n}") for n in range(count)))
        for number in range(PARTITIONS)
    ]


async def test_small_batches_share_a_transaction(scene: Scene) -> None:
    assert await scene.apply(*everybody()) == [Reached(1, stopped=False)] * PARTITIONS
    assert await scene.offsets() == dict.fromkeys(range(PARTITIONS), 1)
    assert await scene.connection.fetchval(TRANSACTIONS) == 1
    assert len(await scene.facts()) == PARTITIONS
    marked = await scene.connection.fetchval("SELECT sum(cardinality(member_ids)) FROM due_batch")
    assert marked == PARTITIONS


async def test_large_batches_do_not(scene: Scene) -> None:
    large = [
        batch(number, *(record(n, f"user-{number}-{n}") for n in range(SMALL_BATCH + 1)))
        for number in range(2)
    ]
    assert await scene.apply(*large) == [Reached(SMALL_BATCH + 1, stopped=False)] * 2
    assert await scene.connection.fetchval(TRANSACTIONS) == 2


@pytest.mark.parametrize(
    ("rows", "is_bulk"), [(intake.FEW_ROWS, False), (intake.FEW_ROWS + 1, True)]
)
async def test_marks_of_many_rows_are_those_of_a_backlog(
    scene: Scene, rows: int, is_bulk: bool
) -> None:
    await scene.apply(batch(0, *(record(n, f"user-{n}") for n in range(rows))))
    marks = await scene.connection.fetch(
        "SELECT is_bulk, sum(cardinality(member_ids)) FROM due_batch GROUP BY is_bulk"
    )
    assert [tuple(row) for row in marks] == [(is_bulk, rows)]


async def refuse(*_: Any) -> bool:
    """As if no batch were plain."""
    return False


@pytest.mark.parametrize("steps", [False, True], ids=["at once", "step by step"])
@pytest.mark.parametrize("seed", range(3))
async def test_of_many_rows_the_newest_win_whatever_is_there(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, seed: int, steps: bool
) -> None:
    """Of small batches and of large ones, one after the other; as if all had come in one."""
    monkeypatch.setattr(intake, "FEW_ROWS", 20)
    if steps:
        monkeypatch.setattr(scene.applier, "_apply_plain", refuse)
    rng = random.Random(seed)
    sent: list[Any] = []
    for _ in range(12):
        start = len(sent)
        for offset in range(start, start + rng.choice([10, SMALL_BATCH + 1])):
            at = wire_time(NOW - timedelta(seconds=rng.randrange(4)))
            person, event = f"user-{rng.randrange(12)}", f"event-{rng.randrange(start // 20 + 20)}"
            status = rng.choice(["attended", "partial", "absent"])
            message = {"id": f"m-{rng.randrange(9)}", "recorded_at": at, "status": status}
            sent.append(record(offset, person, event, **message))
        assert await scene.apply(Batch(TOPIC, 0, start, len(sent), sent[start:])) == [
            Reached(len(sent), stopped=False)
        ]
    rows = decode_batch(
        InputKind.ATTENDANCE, sent, latest_allowed=NOW, max_consecutive_failures=1
    ).rows
    assert await scene.facts() == sorted((row[2], row[3], row[4]) for row in rows)
    marked = await scene.connection.fetchval(
        "SELECT array_agg(DISTINCT m.user_id) FROM due_batch, unnest(member_ids) AS u (member_id) "
        "JOIN member m USING (member_id)"
    )
    assert sorted(marked) == sorted({row[2] for row in rows})


async def test_another_adds_the_same_fact_meanwhile(scene: Scene) -> None:
    """Where a producer leaves out the key, two partitions may bring records of one fact at once."""
    await scene.apply(batch(0, record(0, "ada")))
    many = [record(n, "ada", f"event-{n}") for n in range(intake.FEW_ROWS + 1)]
    block = scene.connection.transaction()
    await block.start()
    await scene.connection.execute(ADD_ABSENCES, NOW + timedelta(seconds=1))
    applying_many = asyncio.create_task(scene.apply(batch(1, *many)))
    await scene.until_it_waits(applying_many)
    await block.commit()
    assert await applying_many == [Reached(len(many), stopped=False)]
    facts = await scene.facts()
    assert len(facts) == len(many) + 1
    assert [event for _, event, status in facts if status == "absent"] == ["event-7"]


@pytest.mark.parametrize("others", [0, SMALL_BATCH], ids=["small", "large"])
async def test_whom_others_add_meanwhile_costs_no_second_pass(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """Several topics bring the same new people at once when everything is read from its start."""
    monkeypatch.setattr(scene.applier, "_apply_step_by_step", refuse)
    block = scene.connection.transaction()
    await block.start()
    await scene.connection.execute(ADD_ADA)
    rows = [record(0, "ada"), *(record(n, f"user-{n}") for n in range(1, others + 1))]
    applying = asyncio.create_task(scene.apply(batch(0, *rows)))
    await scene.until_it_waits(applying)
    await block.commit()
    assert await applying == [Reached(len(rows), stopped=False)]
    assert len(await scene.facts()) == len(rows)


async def test_the_newest_record_wins_across_partitions(scene: Scene) -> None:
    """Where a producer leaves out the key, records of one member are anywhere."""
    later = wire_time(NOW + timedelta(seconds=1))
    batches = [
        batch(0, record(0, "ada", status="absent", recorded_at=later)),
        batch(1, record(0, "ada")),
        batch(2, record(0, "ada", "other")),
    ]
    await scene.apply(*batches)
    assert await scene.connection.fetchval(TRANSACTIONS) == 1
    assert await scene.facts() == [("ada", "e", "absent"), ("ada", "other", "attended")]


async def test_who_is_fenced_does_not_hold_up_the_others(scene: Scene) -> None:
    await scene.connection.execute("UPDATE stream_offset SET epoch = epoch + 1 WHERE partition = 2")
    results = await scene.apply(*everybody())
    assert isinstance(results.pop(2), Fenced)
    assert results == [Reached(1, stopped=False)] * (PARTITIONS - 1)
    assert await scene.offsets() == dict.fromkeys(range(PARTITIONS), 1) | {2: 0}
    assert {user for user, *_ in await scene.facts()} == {
        f"user-{number}" for number in range(PARTITIONS) if number != 2
    }


async def test_an_erasure_takes_what_was_refused_before_it_and_no_more(scene: Scene) -> None:
    tp = TP(MEMBERSHIPS, 0)
    claims = await scene.applier.claim([tp], 1)
    at_ms = int(NOW.timestamp() * 1000)

    def bad(offset: int, user: str) -> Record:
        return Record(offset, b'{"display_name": "Secret"', f"club:{user}".encode(), at_ms)

    def tombstone(offset: int, user: str) -> Record:
        return Record(offset, None, f"club:{user}".encode(), at_ms)

    records = (
        bad(0, "ada"), bad(1, "ben"), tombstone(2, "ada"), bad(3, "ada"), tombstone(4, "ben"),
        bad(5, "ben"), tombstone(6, "ada"),
    )  # fmt: skip
    await scene.applier.apply(claims[tp], Batch(*tp, 0, 7, records), doubtful=False)
    kept = await scene.connection.fetch(
        'SELECT "offset", user_id FROM dead_letter WHERE value IS NOT NULL ORDER BY 1'
    )
    # The last tombstone is a repeat: what came in between is of somebody who has come back.
    assert [tuple(row) for row in kept] == [(3, "ada"), (5, "ben")]
    assert await scene.connection.fetchval("SELECT count(*) FROM dead_letter") == 4


async def test_an_erasure_takes_what_was_recorded_in_its_millisecond(scene: Scene) -> None:
    """Kafka dates it by milliseconds: a fact right before it seems to be a little later."""
    times = (NOW.replace(microsecond=276_324), NOW.replace(microsecond=277_000))
    facts = [
        record(number, "ada", f"event-{number}", recorded_at=wire_time(at))
        for number, at in enumerate(times)
    ]
    await scene.apply(batch(0, *facts))
    tp = TP(MEMBERSHIPS, 0)
    claims = await scene.applier.claim([tp], 1)
    tombstone = Record(0, None, b"club:ada", int(NOW.timestamp() * 1000) + 276)
    with capture_logs() as logs:
        await scene.applier.apply(claims[tp], Batch(*tp, 0, 1, [tombstone]), doubtful=False)
    assert await scene.facts() == [("ada", "event-1", "attended")]
    # In place of a receipt, and without a name.
    (said,) = [line for line in logs if line["event"] == "members_erased"]
    assert (said["count"], said["known"], said["attendances"]) == (1, 1, 1)
    assert "ada" not in repr(said)


@pytest.mark.parametrize("most", [1, 3, 7, 50])
async def test_many_erasures_take_as_many_transactions_as_they_need(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """What takes too long is tried again with fewer, and goes on where it has come to."""
    tp, sizes = TP(MEMBERSHIPS, 0), []

    async def erase_all(connection: Connection, subjects: Any, memory: timedelta) -> Any:
        sizes.append(len(subjects))
        if len(subjects) > most:
            raise Retryable("a statement took too long")
        return await erase(connection, subjects, memory)

    erase = erasures.erase_all
    monkeypatch.setattr(erasures, "erase_all", erase_all)
    monkeypatch.setattr(applying, "MOST_ERASURES", 10)
    scene.applier._most_erasures = 10
    users = [f"user-{number}" for number in range(25)]
    await scene.apply(batch(0, *(record(n, user) for n, user in enumerate(users))))
    claims = await scene.applier.claim([tp], 1)
    now_ms = int(datetime.now(UTC).timestamp() * 1000) + 1_000
    records = [Record(n, None, f"club:{user}".encode(), now_ms) for n, user in enumerate(users)]
    records += [Record(25, b"{"), Record(26, None, b"club:zoe", now_ms)]
    reached, attempts = None, 0
    while reached is None:
        attempts += 1
        with suppress(Retryable):
            reached = await scene.applier.apply(
                claims[tp], Batch(*tp, 0, 30, records), doubtful=attempts > 1
            )
    assert reached == Reached(30, stopped=False)
    assert await scene.facts() == []
    assert await scene.connection.fetchval("SELECT count(*) FROM dead_letter") == 1
    assert sum(size for size in sizes if size <= most) == 26
    # With room again for as many as before, or on the way there.
    assert scene.applier._most_erasures >= min(most, 10)


@pytest.mark.parametrize("timestamp", [-(10**17), -(2**63), -1, 10**17, 2**63 - 1])
async def test_a_tombstone_of_any_time_passes(scene: Scene, timestamp: int) -> None:
    tp = TP(MEMBERSHIPS, 0)
    claims = await scene.applier.claim([tp], 1)
    records = [Record(0, None, b"club:ada", timestamp), Record(1, None, b"club:ben", 0)]
    reached = await scene.applier.apply(claims[tp], Batch(*tp, 0, 2, records), doubtful=False)
    assert reached == Reached(2, stopped=False)
    codes = [row[0] for row in await scene.connection.fetch("SELECT code FROM dead_letter")]
    assert codes == (["future_dated"] if timestamp > 0 else [])


async def test_an_owner_that_goes_on_while_its_partition_is_claimed_stops_nobody(
    database: str, scene: Scene
) -> None:
    """The broker was asked before the former owner applied what came since."""
    settings = load_settings({"DATABASE_URL": database})
    asked = []

    async def ranges(tps: Collection[TP]) -> Mapping[TP, tuple[int, int]]:
        asked.append(set(tps))
        if len(asked) == 1:
            await scene.apply(batch(0, record(0, "ada")))
            return dict.fromkeys(tps, (0, 0))
        return dict.fromkeys(tps, (0, 1))

    check = Positions(scene.pool, settings).check
    applier = _applier(scene.pool, MemberIds(), ranges=ranges, check_claims=_unread(check))
    tps = [TP(TOPIC, number) for number in range(PARTITIONS)]
    claims = await applier.claim(tps, 2)
    assert asked == [set(tps), {TP(TOPIC, 0)}]
    assert {tp: (c.next_offset, c.stopped_at) for tp, c in claims.items()} == {
        tp: (1 if tp.partition == 0 else 0, None) for tp in tps
    }
    assert await scene.connection.fetchval("SELECT count(*) FROM incident") == 0


async def test_claims_that_are_lost_while_they_are_checked_are_left_out(
    database: str, scene: Scene
) -> None:
    check = Positions(scene.pool, load_settings({"DATABASE_URL": database})).check
    claims = list(scene.claims.values())
    await scene.claim()
    ranges = {TP(TOPIC, number): (5 if number == 3 else 0, 9) for number in range(PARTITIONS)}
    # That records are lost has to be written down, by whoever has the claim.
    held = await check(claims, ranges)
    assert sorted(tp.partition for tp in held) == [0, 1, 2, 4, 5]
    assert await scene.connection.fetchval("SELECT count(*) FROM incident") == 0


async def test_a_bad_record_is_refused_and_nothing_else(scene: Scene) -> None:
    """One that decoding refuses goes alone at once, one that the database refuses after all."""
    await scene.connection.execute(
        "ALTER TABLE attendance_fact ADD CONSTRAINT test_refuses CHECK (event_id <> 'refused')"
    )
    batches = everybody()
    batches[1] = batch(1, record(0, "ada"), Record(1, b"{"))
    batches[3] = batch(3, record(0, "ben", "refused"), record(1, "ben"))
    results = await scene.apply(*batches)
    assert [result.next_offset for result in results] == [1, 2, 1, 2, 1, 1]
    letters = await scene.connection.fetch('SELECT partition, "offset", code FROM dead_letter '
                                           "ORDER BY 1")  # fmt: skip
    assert [tuple(row) for row in letters] == [(1, 1, "not_json"), (3, 0, "rejected")]
    assert len(await scene.facts()) == PARTITIONS


async def test_a_server_that_lacks_the_latest_members(scene: Scene) -> None:
    """A standby in its place gives the number of somebody it never heard of to another."""
    await scene.apply(batch(0, record(0, "ada")))
    await scene.connection.execute(LOSE_MEMBERS)
    await scene.connection.execute("INSERT INTO member (org_id, user_id) VALUES ('club', 'eve')")
    await scene.connection.execute(HANG_UP)
    (result,) = await scene.apply(batch(1, record(0, "ada", "later")))
    while isinstance(result, Retryable):
        (result,) = await scene.apply(batch(1, record(0, "ada", "later")), doubtful=True)
    assert await scene.facts() == [("ada", "later", "attended")]


async def test_a_server_that_lacks_what_came_before(scene: Scene) -> None:
    """Where the database stands before the batch, the batch was not applied."""
    later = Batch(TOPIC, 0, 1, 2, [record(1, "ada", "later")])
    await scene.apply(batch(0, record(0, "ada")))
    await scene.connection.execute("UPDATE stream_offset SET next_offset = 0")
    (result,) = await scene.apply(later, doubtful=True)
    assert isinstance(result, OutOfSequence)


@pytest.mark.parametrize("committed", [True, False], ids=["unanswered", "never came"])
@pytest.mark.parametrize("count", [1, SMALL_BATCH + 1], ids=["small", "large"])
async def test_a_commit_that_is_lost(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, count: int, committed: bool
) -> None:
    """Everybody who took part is told that it may have happened, and finds out."""
    await _lose_commits(monkeypatch, committed=committed)
    batches = everybody(count)
    results = await scene.apply(*batches)
    assert all(isinstance(result, Retryable) for result in results)
    assert await scene.offsets() == dict.fromkeys(range(PARTITIONS), count if committed else 0)
    monkeypatch.undo()
    reached = [Reached(count, stopped=False)] * PARTITIONS
    assert await scene.apply(*batches, doubtful=True) == reached
    assert len(await scene.facts()) == PARTITIONS * count


async def _lose_commits(monkeypatch: pytest.MonkeyPatch, *, committed: bool) -> None:
    """No COMMIT is answered, or none arrives."""
    open_transaction: Any = vars(applying)["transaction"]
    call: Any = vars(applying)["apply_plain"]
    error = Retryable("connection lost")

    class Losing:
        def __init__(self, pool: Pool) -> None:
            self._block = open_transaction(pool)

        async def __aenter__(self) -> Any:
            return await self._block.__aenter__()

        async def __aexit__(self, *_: object) -> None:
            outcome = (None, None, None) if committed else (Retryable, error, None)
            await self._block.__aexit__(*outcome)
            raise error

    async def lose(*args: Any, **options: Any) -> None:
        if committed:
            await call(*args, **options)
        raise error

    monkeypatch.setattr(applying, "transaction", Losing)
    monkeypatch.setattr(applying, "apply_plain", lose)


async def test_a_clock_that_is_behind_what_we_took_it_for(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only our idea of the clock allowed is refused by the database's, small batch or not."""
    ahead = wire_time(NOW + timedelta(hours=1))
    monkeypatch.setattr(scene.applier, "_now", lambda: NOW + timedelta(hours=2))
    early = batch(1, record(0, "ben", recorded_at=ahead))

    def note(now: datetime) -> None:
        monkeypatch.setattr(scene.applier, "_now", lambda: now)

    monkeypatch.setattr(scene.applier, "_set_clock", note)
    assert await scene.apply(batch(0, record(0, "ada")), early) == [Reached(1, stopped=False)] * 2
    assert await scene.facts() == [("ada", "e", "attended")]
    assert await scene.connection.fetchval("SELECT code FROM dead_letter") == "future_dated"


@pytest.mark.parametrize("others", [0, SMALL_BATCH], ids=["small", "large"])
async def test_who_was_erased_meanwhile_is_known_anew(scene: Scene, others: int) -> None:
    """The key that is remembered of somebody does not outlive the member."""
    await scene.apply(batch(0, record(0, "ada"), record(1, "ben")))
    async with transaction(scene.pool) as connection:
        subject = erasures.Subject("club", "ada", NOW)
        await erasures.erase_all(connection, [subject], timedelta(days=1))
    again = wire_time(NOW + timedelta(seconds=1))
    records = [
        record(0, "ada", "late"),
        record(1, "ada", "anew", recorded_at=again),
        record(2, "ben", "other"),
        *(record(3 + n, "dan", f"event-{n}") for n in range(others)),
    ]
    assert await scene.apply(batch(1, *records)) == [Reached(3 + others, stopped=False)]
    facts = await scene.facts()
    assert [fact for fact in facts if fact[0] != "dan"] == [
        ("ada", "anew", "attended"), ("ben", "e", "attended"), ("ben", "other", "attended"),
    ]  # fmt: skip
    assert len(facts) == 3 + others
    # And is remembered again, from then on.
    transactions = await scene.connection.fetchval(TRANSACTIONS)
    both = [batch(2, record(0, "ben", "more")), batch(3, record(0, "cat"))]
    assert await scene.apply(*both) == [Reached(1, stopped=False)] * 2
    assert await scene.connection.fetchval(TRANSACTIONS) == transactions + 1


async def test_an_answer_that_the_old_server_gave_late(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a statement is under way, others are connected to a standby that lacks its commit."""
    call: Any = vars(applying)["apply_plain"]

    async def answered_late(*args: Any, **options: Any) -> Any:
        committed = await call(*args, **options)
        await scene.connection.execute(LOSE_MEMBERS)
        await scene.connection.execute("UPDATE stream_offset SET next_offset = 0")
        await scene.connection.execute(
            "INSERT INTO member (org_id, user_id) VALUES ('club', 'eve')"
        )
        await scene.pool.expire_connections()
        async with acquired(scene.pool):
            pass
        return committed

    monkeypatch.setattr(applying, "apply_plain", answered_late)
    await scene.apply(batch(0, record(0, "ada")))
    monkeypatch.undo()
    await scene.apply(batch(1, record(0, "ada", "later")))
    assert await scene.facts() == [("ada", "later", "attended")]
