"""The current records, in whatever order and however often the input arrived."""

from collections import defaultdict
from datetime import datetime
from typing import Any

from tests.oracle.wire import KINDS, Record, canonical_body

Member = tuple[str, str]
"""(org_id, user_id)"""


class Facts:
    """What the tables of facts should hold, and what was erased."""

    def __init__(self) -> None:
        self.clashes = 0
        self.events: dict[str, dict[Member, dict[str, Record]]] = {
            "attendance": defaultdict(dict),
            "rsvp": defaultdict(dict),
        }
        self.memberships: dict[Member, Record] = {}
        self.organizations: dict[str, Record] = {}
        self.profiles: dict[str, dict[str, Record]] = defaultdict(dict)
        self._erased_at: dict[Member, datetime] = {}
        self._user_erased_at: dict[str, datetime] = {}
        self._profile_erased_at: dict[str, datetime] = {}

    def keep(self, kind: str, record: Record) -> None:
        """Fold in one checked record, unless an erasure has claimed it."""
        if kind == "organization":
            self._keep_greatest(self.organizations, record["org_id"], record)
        elif kind == "profile-update":
            if not _is_claimed(record, self._profile_erased_at.get(record["user_id"])):
                self._keep_greatest(self.profiles[record["user_id"]], record["id"], record)
        else:
            member = (record["org_id"], record["user_id"])
            if _is_claimed(record, self._erased_at.get(member)):
                return
            if kind == "membership":
                self._keep_greatest(self.memberships, member, record)
            else:
                self._keep_greatest(self.events[kind][member], record["event_id"], record)

    def _keep_greatest(self, table: dict[Any, Record], key: object, record: Record) -> None:
        """Make the record current if none is, or if it is greater than the current one."""
        current = table.get(key)
        if current is None:
            table[key] = record
            return
        rank = (record["recorded_at"], record["id"])
        current_rank = (current["recorded_at"], current["id"])
        if rank > current_rank:
            table[key] = record
        elif rank == current_rank and record != current:
            self.clashes += 1
            if canonical_body(record) > canonical_body(current):
                table[key] = record

    def erase(self, member: Member, erased_at: datetime) -> None:
        """Forget what was recorded of the member at or before `erased_at`, and never take it again.

        Idempotent; an earlier `erased_at` than one before changes nothing.
        """
        erased_at = max(erased_at, self._erased_at.get(member, erased_at))
        self._erased_at[member] = erased_at
        for members in self.events.values():
            kept = _recorded_after(erased_at, members.pop(member, {}))
            if kept:
                members[member] = kept
        membership = self.memberships.get(member)
        if membership is not None and _is_claimed(membership, erased_at):
            del self.memberships[member]
        user_id = member[1]
        latest = max(erased_at, self._user_erased_at.get(user_id, erased_at))
        self._user_erased_at[user_id] = latest
        if not any(known_user == user_id for _, known_user in self.members()):
            self._profile_erased_at[user_id] = latest
            self.profiles[user_id] = _recorded_after(latest, self.profiles[user_id])

    def members(self) -> set[Member]:
        """Everybody known, scored or not."""
        with_events = (members.keys() for members in self.events.values())
        return set(self.memberships).union(*with_events)

    def records(self, kind: str) -> list[Record]:
        """The current records of a kind, as its table should hold them, by natural key."""
        found: list[Record]
        if kind == "organization":
            found = list(self.organizations.values())
        elif kind == "membership":
            found = list(self.memberships.values())
        elif kind == "profile-update":
            found = [one for updates in self.profiles.values() for one in updates.values()]
        else:
            found = [one for events in self.events[kind].values() for one in events.values()]
        names = KINDS[kind].natural_key
        return sorted(map(dict, found), key=lambda one: [one[name] for name in names])

    def events_of(self, kind: str, member: Member) -> list[Record]:
        """The member's current records of attendance or RSVP, one per event."""
        return list(self.events[kind].get(member, {}).values())


def _is_claimed(record: Record, erased_at: datetime | None) -> bool:
    return erased_at is not None and record["recorded_at"] <= erased_at


def _recorded_after(instant: datetime, table: dict[str, Record]) -> dict[str, Record]:
    return {key: record for key, record in table.items() if not _is_claimed(record, instant)}
