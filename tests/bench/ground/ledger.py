"""A database that has been in use for long: so many facts about so many members, all evaluated."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import asyncpg

from service.demo.input_record import InputRecord
from tests.bench.ground import progress
from tests.bench.ground.backlog import CORRECTIONS, DUPLICATES
from tests.bench.ground.records import attendance
from tests.bench.ground.servers import Ground
from tests.bench.ground.worker import Deployment

FACTS_PER_MEMBER = 12
ACTIVE_MEMBERS = 8_000
SEED = 81
EVALUATION_TIMEOUT_S = 3_600.0
LARGE_SHARE = 10  # where one organisation has nine members of ten

# In the past year and more; what is in the window differs from member to member.
FILL_FACTS = """
INSERT INTO attendance_fact (member_id, event_id, status, occurred_at, recorded_at, message_id)
SELECT m.member_id, 'past-event-' || lpad(k::text, 4, '0'), 'attended', t.at,
       t.at + interval '1 hour', gen_random_uuid()::text
FROM member m CROSS JOIN generate_series(1, $1) AS k
CROSS JOIN LATERAL (SELECT now() - interval '1 day' * (k * 33 + m.member_id % 33)) AS t (at)"""

FILL_ENGAGEMENT = "INSERT INTO engagement (member_id, org_id) SELECT member_id, org_id FROM member"
MARK_EVERYBODY = "INSERT INTO due_member (member_id, cause) SELECT member_id, 'signals' FROM member"

SIZES = """
SELECT pg_total_relation_size('attendance_fact'),
       pg_total_relation_size('member') + pg_total_relation_size('engagement')
       + pg_total_relation_size('engagement_level_history')"""


@dataclass(frozen=True)
class Ledger:
    """What is in the database. `one_large`: the first organisation has 90 % of the members."""

    facts: int
    organisations: int
    one_large: bool = False

    @property
    def members(self) -> int:
        """How many members it has."""
        return max(1, self.facts // FACTS_PER_MEMBER)

    def member(self, number: int) -> tuple[str, str]:
        """Organisation and user id of a member."""
        if self.one_large and number % LARGE_SHARE:
            organisation = 0
        else:
            organisation = number // (LARGE_SHARE if self.one_large else 1) % self.organisations
        return f"org-{organisation:05}", f"user-{number:08}"


class Built(NamedTuple):
    """A template database with a ledger; what its facts and members take on disk, bytes each."""

    database: str
    fact_bytes: float
    member_bytes: float


async def build(ground: Ground, ledger: Ledger) -> Built:
    """Make a template database with this ledger, every member evaluated by a worker."""
    name = ground.fresh("ledger")
    deployment = Deployment(ground, name, keep_database=True)
    async with deployment:
        connection = await deployment.connect()
        await fill(connection, ledger)
        await connection.execute(MARK_EVERYBODY, timeout=EVALUATION_TIMEOUT_S)
        await deployment.start_worker()
        await progress.watch_settling(deployment, timeout_s=EVALUATION_TIMEOUT_S)
    connection = await asyncpg.connect(ground.postgres.dsn(name))
    try:
        await connection.execute("VACUUM ANALYZE", timeout=EVALUATION_TIMEOUT_S)
        facts_b, members_b = (await connection.fetch(SIZES))[0]
    finally:
        await connection.close()
    facts = ledger.members * FACTS_PER_MEMBER
    return Built(name, facts_b / facts, members_b / ledger.members)


async def fill(connection: asyncpg.Connection, ledger: Ledger) -> None:
    """Put members and facts into an empty database; nobody is due."""
    await connection.copy_records_to_table(
        "member",
        records=(ledger.member(number) for number in range(ledger.members)),
        columns=("org_id", "user_id"),
    )
    await connection.execute(FILL_ENGAGEMENT, timeout=EVALUATION_TIMEOUT_S)
    await connection.execute(FILL_FACTS, FACTS_PER_MEMBER, timeout=EVALUATION_TIMEOUT_S)
    await connection.execute("ANALYZE", timeout=EVALUATION_TIMEOUT_S)


def new_records(ledger: Ledger, count: int, active: int) -> Iterator[InputRecord]:
    """New attendance of members of the ledger: `active` of them, evenly from all of it.

    Some come far more often than others; 5 % repeat an earlier record, 2 % correct one.
    """
    rng = random.Random(SEED)
    active = min(active, ledger.members)
    began = datetime.now(UTC) - timedelta(days=30)
    earlier: list[InputRecord] = []
    for number in range(count):
        dice = rng.random()
        if earlier and dice < DUPLICATES:
            yield rng.choice(earlier)
            continue
        chosen = int(rng.random() ** 1.7 * active) * ledger.members // active
        event = f"new-event-{number * 2000 // count:04}"
        status = "attended" if dice > DUPLICATES + CORRECTIONS else "absent"
        at = began + timedelta(days=28) * (number / count)
        record = attendance(*ledger.member(chosen), event, status, at)
        earlier = [*earlier[-200:], record] if number % 50 == 0 else earlier
        yield record
