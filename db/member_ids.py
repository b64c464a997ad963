"""Surrogate keys of the people that records are about: remembered, looked up, or made.

Looking a key up by its two texts costs PostgreSQL 5 us a record, a third of applying it; the same
people come again and again. What is remembered is only valid until a member's row changes, which
raises `member_epoch`; and nobody can change it while the transaction holds erasures off. And only
as long as the connections last: a server that has crashed, or a standby in its place, may lack the
latest commits, and gives the same numbers to others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from db import packing
from db.pool import Connection
from service.errors import Retryable

Key = tuple[str, str]

# Two generations of this many keys, about 20 MB each.
GENERATION: Final = 50_000
PASSES: Final = 5

# The first nextval leaves last_value where it was.
EPOCH: Final = "SELECT last_value + is_called::integer FROM member_epoch"

# The epoch is read once erasures are kept out, and not before: CASE evaluates in this order.
BEGIN: Final = f"""
SELECT CASE WHEN pg_advisory_xact_lock_shared(erasure_lock()) IS NOT NULL
    THEN ({EPOCH}) END"""

# Sorted, so that two workers meet in one order. Whoever was erased goes on with the revision and
# without the older records; those alone (`latest`) bring nobody back: then member_id is null.
# Hashing a subject costs 12 us, so it is only done where it can matter.
RESOLVING: Final = f"""
WITH wanted AS MATERIALIZED (
    SELECT org_id COLLATE "C" AS org_id, user_id COLLATE "C" AS user_id,
           {packing.instant("$3::bytea")} AS latest
    FROM (SELECT {packing.positions("$3::bytea")}, {packing.lines("$1::text")},
                 {packing.lines("$2::text")}) AS w (at, org_id, user_id)
), known AS MATERIALIZED (
    SELECT w.org_id, w.user_id, w.latest, m.member_id, m.accept_after
    FROM wanted w LEFT JOIN member m ON m.org_id = w.org_id AND m.user_id = w.user_id
), missing AS MATERIALIZED (
    SELECT k.org_id, k.user_id, e.erased_at, e.revision, coalesce(e.erased_at >= k.latest, false)
        AS stays_erased
    FROM known k
    LEFT JOIN erasure e ON e.subject = CASE WHEN (SELECT EXISTS (SELECT FROM erasure))
        THEN erasure_subject(k.org_id || ':' || k.user_id) END
    WHERE k.member_id IS NULL
), added AS (
    INSERT INTO member (org_id, user_id, accept_after)
    SELECT org_id, user_id, erased_at FROM missing WHERE NOT stays_erased ORDER BY 1, 2
    ON CONFLICT (org_id, user_id) DO NOTHING
    RETURNING member_id, org_id, user_id, accept_after
), begun AS (
    INSERT INTO engagement (member_id, org_id, revision)
    SELECT a.member_id, a.org_id, coalesce(e.revision, 0) FROM added a
    LEFT JOIN erasure e ON e.subject = CASE WHEN a.accept_after IS NOT NULL
        THEN erasure_subject(a.org_id || ':' || a.user_id) END
), people AS (
    SELECT org_id, user_id, member_id, accept_after FROM known WHERE member_id IS NOT NULL
    UNION ALL
    SELECT org_id, user_id, member_id, accept_after FROM added
    UNION ALL
    SELECT org_id, user_id, NULL, erased_at FROM missing WHERE stays_erased
)"""  # noqa: S608 - made of constants
RESOLVE: Final = f"""{RESOLVING}
SELECT org_id, user_id, member_id, accept_after FROM people"""  # noqa: S608 - made of constants
# Those to whom everything applies, in the order of their keys, once RESOLVING has been there.
MADE: Final = "array_agg(member_id ORDER BY org_id, user_id)"
PLAIN: Final = "people WHERE accept_after IS NULL"


class Erased(NamedTuple):
    """Who was erased: records up to `accept_after` are late. No key: all of them are."""

    member_id: int | None
    accept_after: datetime


class People(NamedTuple):
    """Keys of members to whom everything applies, and the others."""

    plain: Mapping[Key, int]
    erased: Mapping[Key, Erased]


def latest_of_unknown(
    keys: Sequence[Key], found: Sequence[int | None], recorded_at: Sequence[datetime]
) -> dict[Key, datetime]:
    """Who was not found, in order, with the latest `recorded_at`; sequences of equal length."""
    latest: dict[Key, datetime] = {}
    for n in unknown_in(found):
        key, at = keys[n], recorded_at[n]
        if latest.setdefault(key, at) < at:
            latest[key] = at
    return dict(sorted(latest.items()))


def unknown_in(found: Sequence[int | None]) -> list[int]:
    """Where there is no key."""
    return [n for n, member_id in enumerate(found) if member_id is None]


class MemberIds:
    """Remembers keys of members to whom everything applies; bounded, one per process.

    `epoch`: the one that what is remembered is of. `renewals`: goes up with each new connection.
    """

    def __init__(self) -> None:
        self._young: dict[Key, int] = {}
        self._old: dict[Key, int] = {}
        self.epoch = -1
        self.renewals = 0

    async def begin(self, connection: Connection) -> None:
        """Keep erasures out until the transaction ends, and drop what may no longer hold."""
        epoch: int = await connection.fetchval(BEGIN)
        if epoch != self.epoch:
            self._forget()
            self.epoch = epoch

    async def renew(self, connection: Connection) -> None:
        """Drop everything: for each new connection, which may lead to another server."""
        # Nothing is remembered under it before a transaction has kept erasures out.
        epoch: int = await connection.fetchval(EPOCH)
        self._forget()
        self.epoch = epoch
        self.renewals += 1

    def _forget(self) -> None:
        self._young, self._old = {}, {}

    def known(self, keys: Sequence[Key]) -> list[int | None]:
        """The remembered key of each member, in order; None where there is none."""
        found = list(map(self._young.get, keys))
        if None in found and self._old:
            for index in unknown_in(found):
                if (older := self._old.get(keys[index])) is not None:
                    found[index] = self._young[keys[index]] = older
        return found

    def remember(self, members: Mapping[Key, int], epoch: int, renewals: int) -> None:
        """Keep what a committed transaction has resolved under an epoch, if it is still that.

        `renewals`: as it was when the transaction got its connection. One that was in flight while
        another connection was made may have been another server's, whose epochs look the same.
        """
        if (epoch, renewals) != (self.epoch, self.renewals):
            return
        self._young.update(members)
        if len(self._young) > GENERATION:
            self._young, self._old = {}, self._young


def parameters(latest: Mapping[Key, datetime]) -> list[Any]:
    """What RESOLVING takes: people with their latest `recorded_at`."""
    return [
        packing.pack_lines([org_id for org_id, _ in latest]),
        packing.pack_lines([user_id for _, user_id in latest]),
        packing.pack_instants(latest.values()),
    ]


async def resolve(connection: Connection, latest: Mapping[Key, datetime]) -> People:
    """Keys of people, made where they are new. `latest`: their latest `recorded_at`.

    In the caller's transaction; the keys are to be remembered only once it has committed.
    """
    plain: dict[Key, int] = {}
    erased: dict[Key, Erased] = {}
    pending = latest
    for _ in range(PASSES):
        rows = await connection.fetch(RESOLVE, *parameters(pending))
        for org_id, user_id, member_id, accept_after in rows:
            if accept_after is None:
                plain[org_id, user_id] = member_id
            else:
                erased[org_id, user_id] = Erased(member_id, accept_after)
        # Somebody else has just added them: seen by the next statement.
        pending = {key: at for key, at in latest.items() if key not in plain and key not in erased}
        if not pending:
            return People(plain, erased)
    raise Retryable("members that others are adding do not become visible")
