"""Plans of what workers ask all the time, made when there was nothing yet.

A connection keeps the plans that it made first, until the tables have been analysed again: a worker
that waited for its first members would go through all of them for each page.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

import pytest

from db import due, evaluation, intake, member_ids, results, survey
from db.pool import Connection, transaction
from tests.simulation import simulation

NOW: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
GROWING: Final = {
    "member", "engagement", "attendance_fact", "rsvp_fact", "profile_fact", "membership_fact",
    "organization_fact", "erasure",
}  # fmt: skip
STATEMENTS: Final = {
    "lock": evaluation.LOCK,
    "read": evaluation.SELECT_CASES,
    "write": results.WRITE,
    "put to sleep": evaluation.SLEEP,
    "take marks": due.TAKE_MARKS,
    "take batches of marks": due.TAKE_BATCHES,
    "take users": due.TAKE_USERS,
    "take a slice": due.SLICE_OF_ORGANIZATION,
    "take by clock": due.SELECT_BY_CLOCK,
    "put back": due.PUT_BACK,
    "set aside": due.SET_ASIDE,
    "resolve": member_ids.RESOLVE,
    **{f"merge {kind}": merge for kind, merge in intake.MERGES.items()},
    **{f"merge unshared {kind}": intake.unshared(merge) for kind, merge in intake.MERGES.items()},
}


SURVEYED: Final = """
0, 262144, now(), now(), '90 days', true, 3, 1, '60 days', '180 days', NULL, 'rules'"""


async def plan_of(
    connection: Connection, statement: str, arguments: str | None = None
) -> list[str]:
    """The lines of a statement's plan by the connection's settings; by default all are NULL."""
    await connection.execute(f"PREPARE planned AS {statement}")
    parameters = await connection.fetchval(
        "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = 'planned'"
    )
    given = arguments or ", ".join(["NULL"] * parameters)
    return [row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE planned({given})")]


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
async def test_tables_that_grow_are_read_by_index_also_where_nothing_is_known_of_them(
    database: str, statement: str
) -> None:
    async with simulation(database, NOW) as world, transaction(world.pool) as connection:
        lines = await plan_of(connection, statement)
    assert any("Index" in line for line in lines)
    scanned = {found[1] for line in lines if (found := re.search(r"Seq Scan on (\w+)", line))}
    assert not scanned & GROWING


@pytest.mark.parametrize("statement", [survey.SURVEY_ONE_WINDOW, survey.SURVEY_MANY_WINDOWS])
async def test_the_survey_does_not_join_row_by_row_whatever_statistics_say(
    database: str, statement: str
) -> None:
    """Tables that have grown since they were analysed, or never were, are thought to be small.

    20,000 members with ten facts each took minutes: each was looked for among all the others.
    """
    async with simulation(database, NOW) as world, transaction(world.pool) as connection:
        await connection.execute(survey.SETTINGS)
        lines = await plan_of(connection, statement, SURVEYED)
    assert [line for line in lines if "Hash" in line]
    assert not [line for line in lines if "Nested Loop" in line]
