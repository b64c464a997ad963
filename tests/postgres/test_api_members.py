"""How the member list is planned: filters by their values, what is shown once for all."""

from __future__ import annotations

from dataclasses import replace

import asyncpg

from db.api_members import list_members
from db.api_rows import SELECT_MEMBERS
from service.api.values import MemberPosition, MemberQuery, MemberSort

ORG = "club"
# The first three change some day, the others never.
MEMBERS = """
INSERT INTO member (org_id, user_id) SELECT 'club', 'user-' || n FROM generate_series(1, 5) AS n;
INSERT INTO engagement (member_id, org_id, revision, computed_at, level, computed_level, reason,
    computed_source, events_attended_90d, rsvp_count_90d, next_level_change_at)
SELECT member_id, org_id, 1, now(), 'moderate', 'moderate', 'frequent_attendance', 'rules', 3, 0,
       CASE WHEN user_id <= 'user-3' THEN now() + member_id * interval '1 day' END
FROM member"""
PLANS = "SELECT statement, generic_plans, custom_plans FROM pg_prepared_statements"


async def test_a_page_over_both_parts_is_planned_for_its_filters(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute(MEMBERS)
    async with connection.transaction():
        await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        rows = await list_members(connection, ORG, MemberQuery(sort=MemberSort.DUE))
    assert [row.user_id for row in rows] == [f"user-{n}" for n in range(1, 6)]
    plans = {row[0]: (row[1], row[2]) for row in await connection.fetch(PLANS)}
    chosen = [counts for text, counts in plans.items() if "next_level_change_at IS N" in text]
    assert chosen == [(0, 1)] * 2
    assert plans[SELECT_MEMBERS] == (1, 0)
    await connection.close()


async def test_who_is_due_is_not_looked_for_among_those_without_a_date(database: str) -> None:
    """It would be every row of the organisation, for nothing."""
    connection = await asyncpg.connect(database)
    await connection.execute(MEMBERS)
    query = MemberQuery(sort=MemberSort.DUE, due_within_days=2)
    async with connection.transaction():
        rows = await list_members(connection, ORG, query)
        past_all = replace(query, after=MemberPosition(None, rows[-1].number))
        assert await list_members(connection, ORG, past_all) == []
    assert [row.user_id for row in rows] == ["user-1", "user-2"]
    plans = [row[0] for row in await connection.fetch(PLANS)]
    assert len([text for text in plans if "next_level_change_at IS N" in text]) == 1
    await connection.close()
