"""Overrides of a scene: set as an administrator sets them, and how they came to an end."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from db import evaluation
from db.evaluating import Evaluating, RulesJudge
from db.evaluation import CaseReader
from db.explanations import ExplanationCache
from db.overrides import Overriding
from db.pool import open_pool, transaction
from service.levels import Level
from tests.faults.scene import Scene

SOMEBODY: Final = """
SELECT org_id, user_id, level FROM member_engagement
WHERE level IS NOT NULL ORDER BY md5(user_id), org_id LIMIT $1"""
ACTIONS: Final = """
SELECT org_id, user_id, action, performed_by
FROM engagement_override_history ORDER BY override_history_id"""
EXPIRED: Final = """
SELECT org_id, user_id, effective_at, recorded_at
FROM engagement_level_history WHERE cause = 'override_expired'"""

Member = tuple[str, str]


async def override_some(it: Scene, number: int, expires_at: datetime) -> set[Member]:
    """Override the levels of some members until then; who they are."""
    pool = await open_pool(
        it.settings, purpose="test", size=1, prepare=evaluation.prepare_connection
    )
    reader = CaseReader(ExplanationCache(), implicit_membership=True)
    overriding = Overriding(Evaluating(reader, RulesJudge()))
    members = await it.fetch(SOMEBODY, number)
    for org_id, user_id, level in members:
        other = Level.AT_RISK if level == Level.HIGHLY_ENGAGED else Level.HIGHLY_ENGAGED
        async with transaction(pool) as connection:
            await overriding.set(
                connection, org_id, user_id, level=other, notes="because",
                expires_at=expires_at, performed_by="boss", if_revision=None,
            )  # fmt: skip
    await pool.close()
    return {(row["org_id"], row["user_id"]) for row in members}


async def check_expired_once(
    it: Scene, members: set[Member], expires_at: datetime, known_by: datetime
) -> None:
    """Each override has ended once, at the instant that it says, noticed by `known_by`."""
    actions = await it.fetch(ACTIONS)
    for action, performed_by in (("override", "boss"), ("expire", "system")):
        rows = [row for row in actions if row["action"] == action]
        assert sorted((row["org_id"], row["user_id"]) for row in rows) == sorted(members)
        assert {row["performed_by"] for row in rows} == {performed_by}
    changes = await it.fetch(EXPIRED)
    # Records may meanwhile have made the level what the override said; then nothing changed.
    changed = [(row["org_id"], row["user_id"]) for row in changes]
    assert len(changed) == len(set(changed)) > len(members) // 2
    assert set(changed) <= members
    assert {row["effective_at"] for row in changes} == {expires_at}
    noticed = [row["recorded_at"] for row in changes]
    assert expires_at <= min(noticed)
    assert max(noticed) <= known_by
