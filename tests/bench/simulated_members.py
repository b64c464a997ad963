"""Members of a made-up population as the service would know them, instant by instant, in memory."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterator
from datetime import datetime, timedelta

from service.demo.member_life import Life, Told
from service.demo.population import Population
from service.signals import Activity, Dates, JoinedAtSource
from service.standing import NOTHING_PUBLISHED, Standing
from service.thresholds import Thresholds
from service.timeline import Case

COUNTED = ("attended", "partial")


class SimulatedMember:
    """What is known of one member, what is still to be told, and what was last decided."""

    __slots__ = (
        "_activity", "_attended", "_profile", "_rsvps", "_told", "_told_count", "active",
        "has_record", "joined_at", "org_name", "standing", "thresholds",
    )  # fmt: skip

    def __init__(self, told: list[Told], org_name: str, thresholds: Thresholds) -> None:
        self.org_name = org_name
        self.thresholds = thresholds
        self.standing = Standing(0, None, NOTHING_PUBLISHED)
        self.active = True
        self.has_record = False
        self.joined_at: datetime | None = None
        self._told = told
        self._told_count = 0
        self._attended: dict[str, tuple[str, datetime]] = {}
        self._rsvps: dict[str, tuple[str, datetime]] = {}
        self._profile: list[datetime] = []
        self._activity: Activity | None = None

    def next_told_at(self) -> datetime | None:
        """When the next record arrives."""
        left = self._told_count < len(self._told)
        return self._told[self._told_count].recorded_at if left else None

    def hear(self, until: datetime) -> bool:
        """Take in everything recorded up to `until`; whether there was anything."""
        before = self._told_count
        while (at := self.next_told_at()) is not None and at <= until:
            self._take(self._told[self._told_count])
            self._told_count += 1
        if self._told_count != before:
            self._activity = None
        return self._told_count != before

    def case(self) -> Case:
        """Everything that decides about the member now."""
        if self._activity is None:
            self._activity = self._as_known()
        return Case(self._activity, self.thresholds, self.active)

    def _take(self, told: Told) -> None:
        body = told.body
        if body is None:
            self.active = False
        elif told.kind == "attendance":
            occurred_at, status = body["occurred_at"], body["status"]
            assert isinstance(occurred_at, datetime)
            self._attended[told.ids["event_id"]] = (str(status), occurred_at)
        elif told.kind == "rsvp":
            responded_at = body["responded_at"]
            assert isinstance(responded_at, datetime)
            self._rsvps[told.ids["event_id"]] = (str(body["response"]), responded_at)
        elif told.kind == "profile-update":
            updated_at = body["updated_at"]
            assert isinstance(updated_at, datetime)
            if body.get("actor", "member") == "member":
                self._profile.append(updated_at)
        else:
            joined_at = body["joined_at"]
            assert isinstance(joined_at, datetime)
            self.has_record, self.joined_at = True, joined_at
            self.active = body["status"] == "active"

    def _as_known(self) -> Activity:
        attended = sorted(at for status, at in self._attended.values() if status in COUNTED)
        rsvps = sorted(at for response, at in self._rsvps.values() if response == "going")
        joined_at, source = self.joined_at, JoinedAtSource.MEMBERSHIP
        if not self.has_record:
            joined_at = min([*attended[:1], *rsvps[:1]], default=None)
            source = JoinedAtSource.INFERRED
        return Activity(
            Dates(attended), Dates(rsvps), Dates(sorted(self._profile)), joined_at,
            None if joined_at is None else source,
        )  # fmt: skip


def simulated(
    population: Population, names: dict[str, str], thresholds: dict[str, Thresholds]
) -> Iterator[SimulatedMember]:
    """Every member with their whole life, told so far as it is recorded by the population's end."""
    rng = random.Random("lives")
    for organisation, member in population.members():
        first = bisect_left(
            organisation.events, member.joined_at, key=lambda event: event.starts_at
        )
        life = Life(member, population.rates, rng).tell(organisation.events[first:])
        told = [one for one in life if one.recorded_at <= population.ends_at]
        org_id = organisation.org_id
        yield SimulatedMember(told, names[org_id], thresholds[org_id])


def days_between(first: datetime, last: datetime) -> Iterator[datetime]:
    """`first` and every day after it, up to and including `last`."""
    while first <= last:
        yield first
        first += timedelta(days=1)
