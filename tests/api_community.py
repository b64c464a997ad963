"""A community in a database, as ingest and evaluator would have left it: real rows, real levels."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from db import evaluation
from db.evaluating import Evaluating, RulesJudge
from db.evaluation import CaseReader
from db.explanations import ExplanationCache

CLOCK = """
CREATE OR REPLACE FUNCTION engagement_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
    RETURN transaction_timestamp() + interval '{seconds} seconds'"""

ORG = "riverside"
OTHER_ORG = "hillside"
SUSPENDED_ORG = "sleeper"
DELETED_ORG = "gone"

ADMIN = "ada.admin"
SECOND_ADMIN = "grace.admin"
MEMBER = "bob"
SILENT = "sam"  # at risk
LOST = "ivy"  # inactive
NEWCOMER = "nora"
LEFT = "lee"
IMPLICIT = "mo"
MARKUP = "mallory"
OTHER_ADMIN = "hal.admin"
OTHER_MEMBER = "hannah"
SUSPENDED_ADMIN = "sue.admin"
SUSPENDED_MEMBER = "sid"
DELETED_ADMIN = "gus.admin"
STRANGER = "nobody-here"

MARKUP_NAME = "<script>alert('name')</script>"


class Community:
    """Writes facts and evaluates, now or at times that the database's clock is set back to."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.members: dict[tuple[str, str], int] = {}
        reader = CaseReader(ExplanationCache(), implicit_membership=True)
        self._evaluating = Evaluating(reader, RulesJudge())
        self._events = 0

    @classmethod
    async def at(cls, dsn: str) -> Community:
        """Connect; close `connection` in the end."""
        connection = await asyncpg.connect(dsn, server_settings={"timezone": "UTC"})
        await evaluation.prepare_connection(connection)
        return cls(connection)

    async def execute(self, statement: str, *arguments: Any) -> None:
        await self.connection.execute(statement, *arguments)

    async def organization(self, org_id: str, name: str, status: str = "active") -> None:
        await self.execute(
            "INSERT INTO organization_fact (org_id, recorded_at, message_id, status, name)"
            " VALUES ($1, now(), 'm', $2, $3) ON CONFLICT (org_id)"
            " DO UPDATE SET status = excluded.status, name = excluded.name",
            org_id, status, name,
        )  # fmt: skip

    async def member(
        self,
        user_id: str,
        *,
        org_id: str = ORG,
        name: str | None = None,
        role: str = "member",
        status: str | None = "active",
        joined: float = 400,
        attended: Iterable[float] = (),
        rsvps: Iterable[float] = (),
    ) -> int:
        """A member with activity so many days ago; `status` None: no membership record."""
        member_id: int = await self.connection.fetchval(
            "INSERT INTO member (org_id, user_id) VALUES ($1, $2) RETURNING member_id",
            org_id, user_id,
        )  # fmt: skip
        self.members[org_id, user_id] = member_id
        await self.execute(
            "INSERT INTO engagement (member_id, org_id) VALUES ($1, $2)", member_id, org_id
        )
        if status is not None:
            await self.membership(
                user_id, org_id=org_id, name=name, role=role, status=status, joined=joined
            )
        for days in attended:
            await self.attend(user_id, days, org_id=org_id)
        for days in rsvps:
            await self.respond(user_id, days, org_id=org_id)
        return member_id

    async def membership(
        self,
        user_id: str,
        *,
        org_id: str = ORG,
        name: str | None = None,
        role: str = "member",
        status: str = "active",
        joined: float = 400,
    ) -> None:
        await self.execute(
            "INSERT INTO membership_fact (member_id, joined_at, recorded_at, message_id, status,"
            " role, display_name) VALUES ($1, $2, now(), 'm', $3, $4, $5)"
            " ON CONFLICT (member_id) DO UPDATE SET status = excluded.status,"
            " role = excluded.role, display_name = excluded.display_name",
            self.members[org_id, user_id], ago(joined), status, role, name,
        )  # fmt: skip

    async def attend(self, user_id: str, days: float, *, org_id: str = ORG) -> None:
        self._events += 1
        await self.execute(
            "INSERT INTO attendance_fact (member_id, occurred_at, recorded_at, event_id, status,"
            " message_id) VALUES ($1, $2, now(), $3, 'attended', 'm')",
            self.members[org_id, user_id], ago(days), f"evening-{self._events:05}",
        )  # fmt: skip

    async def respond(self, user_id: str, days: float, *, org_id: str = ORG) -> None:
        self._events += 1
        await self.execute(
            "INSERT INTO rsvp_fact (member_id, responded_at, recorded_at, event_id, response,"
            " message_id) VALUES ($1, $2, now(), $3, 'going', 'm')",
            self.members[org_id, user_id], ago(days), f"evening-{self._events:05}",
        )  # fmt: skip

    async def set_clock(self, *, days_ago: float) -> None:
        """Let the database live in the past, or (0) in the present."""
        await self.execute(CLOCK.format(seconds=-days_ago * 86_400))

    async def evaluate(self, users: Sequence[tuple[str, str]] | None = None) -> None:
        """Evaluate these (organisation, user), by default everybody, because facts have come."""
        chosen = self.members if users is None else {u: self.members[u] for u in users}
        await self._evaluate({number: {"signals"} for number in chosen.values()})

    async def live_through(self, days: Sequence[float]) -> None:
        """Evaluate everybody at each of these times (days ago), oldest first, then now."""
        before = 10_000.0
        for days_ago in [*sorted(days, reverse=True), 0.0]:
            await self.set_clock(days_ago=days_ago)
            active = await self.connection.fetch(
                "SELECT DISTINCT member_id FROM attendance_fact"
                " WHERE occurred_at > $1 AND occurred_at <= $2",
                ago(before), ago(days_ago),
            )  # fmt: skip
            causes: dict[int, set[str]] = {number: set() for number in self.members.values()}
            causes |= {row["member_id"]: {"signals"} for row in active}
            await self._evaluate(causes)
            before = days_ago

    async def _evaluate(self, causes: Mapping[int, set[str]]) -> None:
        async with self.connection.transaction():
            await self._evaluating.evaluate_members(self.connection, causes)


def ago(days: float) -> datetime:
    """So many days ago."""
    return datetime.now(UTC) - timedelta(days=days)


async def settle(dsn: str, *, begin_days_ago: float = 0) -> Community:
    """Everybody whom the tests speak of, evaluated for the first time so many days ago."""
    community = await Community.at(dsn)
    await community.set_clock(days_ago=begin_days_ago)
    await community.organization(ORG, "Riverside Makers")
    await community.organization(OTHER_ORG, "Hillside Singers")
    await community.organization(SUSPENDED_ORG, "Sleepers", "suspended")
    await community.organization(DELETED_ORG, "Gone Club", "deleted")
    recent = (10, 20, 30)
    await community.member(ADMIN, name="Ada Admin", role="admin", attended=recent)
    await community.member(SECOND_ADMIN, name="Grace Admin", role="admin", attended=(85,))
    await community.member(MEMBER, name="Bob Builder", attended=(15, 200), rsvps=(5, 40))
    await community.member(SILENT, name="Sam Silent", attended=(120,))
    await community.member(LOST, name="Ivy Lost", attended=(300,))
    await community.member(NEWCOMER, name="Nora New", joined=5)
    await community.member(LEFT, name="Lee Left", attended=recent)
    await community.member(IMPLICIT, status=None, attended=(50, 200))
    await community.member(MARKUP, name=MARKUP_NAME, attended=(40,))
    await community.member(OTHER_ADMIN, org_id=OTHER_ORG, role="admin", name="Hal", attended=(3,))
    await community.member(OTHER_MEMBER, org_id=OTHER_ORG, name="Hannah", attended=(100,))
    await community.member(SUSPENDED_ADMIN, org_id=SUSPENDED_ORG, role="admin", attended=(1,))
    await community.member(SUSPENDED_MEMBER, org_id=SUSPENDED_ORG, attended=(1,))
    await community.member(DELETED_ADMIN, org_id=DELETED_ORG, role="admin", attended=(1,))
    # Those whose organisation is not active any more were scored before.
    await community.organization(SUSPENDED_ORG, "Sleepers")
    await community.evaluate()
    await community.organization(SUSPENDED_ORG, "Sleepers", "suspended")
    await community.membership(LEFT, name="Lee Left", status="left")
    await community.evaluate([(ORG, LEFT)])
    return community


FIRST = (
    "Ada", "Ben", "Chloé", "Dan", "Eve", "Finn", "Grace", "Hugo", "Iris", "Jan", "Kim", "Léa",
    "Mira", "Noor", "Omar", "Pia", "Quinn", "Rosa", "Sven", "Tess", "Uma", "Vera", "Wim", "Yara",
)  # fmt: skip
LAST = (
    "Smith", "Jones", "Müller", "García", "Rossi", "Kowalski", "Ito", "Nguyen", "Okafor", "Silva",
    "Larsen", "Dubois", "Novák", "Haddad",
)  # fmt: skip


async def populate(community: Community, members: int, *, seed: int = 7) -> None:
    """Made-up members of ORG with a year behind them, for pages that look like pages."""
    chance = random.Random(seed)
    for number in range(members):
        first, last = chance.choice(FIRST), chance.choice(LAST)
        keenness = chance.random() ** 2
        fades = chance.choice((0, 0, 60, 120, 200))
        joined = chance.choice((20, 45, 300, 500, 900))
        days = [d for d in range(fades, min(joined, 360), 9) if chance.random() < keenness * 0.7]
        await community.member(
            f"{first.lower()}.{last.lower()}.{number}".encode("ascii", "ignore").decode(),
            name=f"{first} {last}",
            joined=joined,
            attended=[d + chance.random() * 5 for d in days],
            rsvps=[d + 1 + chance.random() for d in days if chance.random() < 0.5],
        )
