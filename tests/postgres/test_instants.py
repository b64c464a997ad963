"""Instants keep their value on the way to the server and back, to the microsecond."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone

import asyncpg
import pytest

from db import evaluation, intake, packing
from db.member_ids import MemberIds
from service.events import InputKind
from service.instants import wire_time

MICROSECOND = timedelta(microseconds=1)
INSTANTS = [
    datetime.min.replace(tzinfo=UTC),
    datetime(1999, 12, 31, 23, 59, 59, 999_999, UTC),
    datetime(2000, 1, 1, tzinfo=UTC),
    datetime(2026, 3, 29, 3, 0, 0, 1, timezone(timedelta(hours=2))),
    datetime.max.replace(tzinfo=UTC),
]


@pytest.fixture(params=[intake, evaluation], ids=["intake", "evaluation"])
async def connection(
    database: str, request: pytest.FixtureRequest
) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    await request.param.prepare_connection(connection)
    yield connection
    await connection.close()


@pytest.mark.parametrize("instant", INSTANTS, ids=datetime.isoformat)
async def test_they_are_what_the_server_reads_in_their_text(
    connection: asyncpg.Connection, instant: datetime
) -> None:
    row = await connection.fetchrow(
        "SELECT $1::timestamptz = $2::text::timestamptz, $2::text::timestamptz",
        instant,
        wire_time(instant),
    )
    assert row is not None
    assert tuple(row) == (True, instant)


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
async def test_packed_they_are_the_same_in_any_zone_of_the_session(
    connection: asyncpg.Connection, zone: str
) -> None:
    await connection.execute(f"SET timezone = '{zone}'")
    rows = await connection.fetch(
        f"SELECT {packing.instant('$1::bytea')}"
        f" FROM (SELECT {packing.positions('$1::bytea')}) AS n (at)",
        packing.pack_instants(INSTANTS),
    )
    assert [row[0] for row in rows] == INSTANTS


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
async def test_facts_keep_them_to_the_microsecond(database: str, zone: str) -> None:
    """Far from 2000, too, where a number of microseconds is more than a floating point number."""
    rng = random.Random(zone)
    span = INSTANTS[-1] - INSTANTS[0]
    instants = [
        *INSTANTS,
        INSTANTS[0] + timedelta(microseconds=1),
        INSTANTS[-1] - timedelta(microseconds=1),
        *(
            INSTANTS[0] + timedelta(microseconds=rng.randrange(span // MICROSECOND))
            for _ in range(500)
        ),
    ]
    rows = [
        (f"m{n}", "club", "ann", f"e{n}", "attended", instant, instants[-1 - n])
        for n, instant in enumerate(instants)
    ]
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(f"SET timezone = '{zone}'")
        await intake.prepare_connection(connection)
        async with connection.transaction():
            await intake.apply_rows(connection, InputKind.ATTENDANCE, rows, MemberIds())
        found = await connection.fetch("SELECT event_id, occurred_at, recorded_at FROM attendance")
    finally:
        await connection.close()
    assert {tuple(row) for row in found} == {(row[3], row[5], row[6]) for row in rows}


async def test_what_python_does_not_know_is_the_first_or_the_last(
    connection: asyncpg.Connection,
) -> None:
    """As the driver has infinity by itself: other connections read the same rows."""
    row = await connection.fetchrow(
        "SELECT '-infinity'::timestamptz, 'infinity'::timestamptz, '4000-01-01 BC'::timestamptz"
    )
    assert row is not None
    assert tuple(row) == (INSTANTS[0], INSTANTS[-1], INSTANTS[0])


@pytest.mark.parametrize(("extreme", "hours"), [(INSTANTS[-1], -12), (INSTANTS[0], 12)])
async def test_what_not_every_connection_reads_again_is_refused(
    connection: asyncpg.Connection, extreme: datetime, hours: int
) -> None:
    """Others have the driver's own codec, which fails at the year 10000."""
    beyond = extreme.replace(tzinfo=timezone(timedelta(hours=hours)))
    with pytest.raises(asyncpg.DataError):
        await connection.fetchval("SELECT $1::timestamptz", beyond)
