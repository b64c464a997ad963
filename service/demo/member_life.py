"""What one made-up member does, and what an organisation's systems tell about it.

Interest comes in spells: an engaged member comes to some of the events, stays away for months,
perhaps returns, and fades with the years. Figures were chosen to look like small clubs.
"""

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import NamedTuple

ENGAGED_SPELL_DAYS = 120.0
AWAY_SPELL_DAYS = 150.0
FADING_DAYS = 700.0
DAYS_A_YEAR = 365.0
LONGEST_RSVP_LEAD_DAYS = 10.0
EARLIEST_CHECK_IN_H = 20.0


@dataclass(frozen=True)
class Rates:
    """How often things happen; shares between 0 and 1 unless a name says otherwise."""

    without_membership: float = 0.05
    admins: float = 0.01
    second_organisation: float = 0.05
    leaves_a_year: float = 0.08
    rejoins_a_year: float = 0.5
    rsvp: float = 0.5
    partial: float = 0.05
    no_show: float = 0.01
    early_check_in: float = 0.002
    """Attendance told up to 20 h before the event."""
    profile_updates_a_year: float = 1.5
    corrections: float = 0.02
    erasures: float = 0.0
    """Of the members of one organisation, by a tombstone after which they are silent."""
    late: float = 0.05
    """Sent up to ten days after being recorded."""
    duplicates: float = 0.02
    clashes: float = 0.0005
    """Sent again with the same id and time but another content."""
    cloud_events: float = 0.05
    """Sent with the id in a header only."""
    bad: float = 0.002


class Event(NamedTuple):
    """A community event of one organisation."""

    event_id: str
    starts_at: datetime


class Told(NamedTuple):
    """What a producer learned, before it is given an id; `body` None erases the member."""

    recorded_at: datetime
    kind: str
    ids: dict[str, str]
    body: dict[str, str | datetime] | None


@dataclass
class Member:
    """A made-up person in one organisation, and what will become of them."""

    org_id: str
    user_id: str
    joined_at: datetime
    keenness: float
    """The share of events that they come to at first, while engaged."""
    display_name: str | None = None
    role: str = "member"
    has_record: bool = True
    erased_at: datetime | None = None
    engaged: bool = True
    left: bool = field(default=False, init=False)


class Life:
    """The records of one member, told in the order in which they were recorded."""

    def __init__(self, member: Member, rates: Rates, rng: random.Random) -> None:
        self.member = member
        self.rates = rates
        self.rng = rng
        self._seen_until = member.joined_at

    def tell(self, events: list[Event]) -> Iterator[Told]:
        """Everything from joining on, given the organisation's events since then, in order.

        Lives only a little ahead of what it tells: the random numbers are drawn on the way.
        """
        waiting: list[tuple[datetime, int, Told]] = []
        order = count()
        if self.member.has_record:
            joining = self._membership("active", self.member.joined_at)
            waiting.append((joining.recorded_at, next(order), joining))
        for event in events:
            nothing_before = event.starts_at - timedelta(days=LONGEST_RSVP_LEAD_DAYS)
            while waiting and waiting[0][0] <= nothing_before:
                yield heapq.heappop(waiting)[2]
            for told in self._live(event):
                heapq.heappush(waiting, (told.recorded_at, next(order), told))
            if self._is_erased_by(event):
                break
        while waiting:
            yield heapq.heappop(waiting)[2]

    def _live(self, event: Event) -> Iterator[Told]:
        """What is told because time has come to this event, in any order."""
        member = self.member
        if member.erased_at is not None and self._is_erased_by(event):
            yield Told(member.erased_at, "membership", self._ids(), None)
            return
        passed_days = (event.starts_at - self._seen_until) / timedelta(days=1)
        self._seen_until = event.starts_at
        yield from self._come_and_go(event.starts_at, passed_days)
        if not member.left:
            yield from self._meet(event)
            if self._chance(self.rates.profile_updates_a_year * passed_days / DAYS_A_YEAR):
                yield self._profile_update(event.starts_at - self._up_to(hours=48))

    def _is_erased_by(self, event: Event) -> bool:
        return self.member.erased_at is not None and event.starts_at >= self.member.erased_at

    def _come_and_go(self, at: datetime, passed_days: float) -> Iterator[Told]:
        member = self.member
        spell_days = ENGAGED_SPELL_DAYS if member.engaged else AWAY_SPELL_DAYS
        if self._chance(passed_days / spell_days):
            member.engaged = not member.engaged
        if not member.has_record:
            return
        moves = self.rates.rejoins_a_year if member.left else self.rates.leaves_a_year
        if self._chance(moves * passed_days / DAYS_A_YEAR):
            member.left = not member.left
            if not member.left:
                member.joined_at = at - self._up_to(hours=24)
                member.engaged = True
            yield self._membership("left" if member.left else "active", at)

    def _meet(self, event: Event) -> Iterator[Told]:
        """What is told about the member and one event."""
        member = self.member
        if not member.engaged:
            return
        age_days = max(0.0, (event.starts_at - member.joined_at) / timedelta(days=1))
        if self._chance(member.keenness * 2 ** (-age_days / FADING_DAYS)):
            if self._chance(self.rates.rsvp):
                yield self._rsvp(event, "going")
            yield from self._attendance(event, self._pick("partial", self.rates.partial))
        elif self._chance(self.rates.no_show):
            yield self._rsvp(event, "going")
            yield from self._attendance(event, "absent")
        elif self._chance(self.rates.no_show):
            yield self._rsvp(event, self.rng.choice(("maybe", "declined", "going")))
            if self._chance(0.5):
                yield self._rsvp(event, "withdrawn", lead_days=0.2)

    def _attendance(self, event: Event, status: str) -> Iterator[Told]:
        if self._chance(self.rates.early_check_in):
            recorded_at = event.starts_at - self._up_to(hours=EARLIEST_CHECK_IN_H)
        else:
            recorded_at = event.starts_at + self._up_to(hours=30)
        body: dict[str, str | datetime] = {"status": status, "occurred_at": event.starts_at}
        ids = self._ids(event)
        yield Told(recorded_at, "attendance", ids, body)
        if self._chance(self.rates.corrections):
            corrected = "attended" if status == "absent" else self._pick("void", 0.5, "absent")
            later_at = max(recorded_at, event.starts_at) + self._up_to(hours=20 * 24)
            yield Told(later_at, "attendance", ids, {**body, "status": corrected})

    def _rsvp(self, event: Event, response: str, lead_days: float = LONGEST_RSVP_LEAD_DAYS) -> Told:
        responded_at = event.starts_at - self._up_to(hours=24 * lead_days)
        body: dict[str, str | datetime] = {"response": response, "responded_at": responded_at}
        return Told(responded_at + self._up_to(hours=0.01), "rsvp", self._ids(event), body)

    def _profile_update(self, updated_at: datetime) -> Told:
        actor = self._pick("member", 0.8, self._pick("admin", 0.5, "system"))
        body: dict[str, str | datetime] = {"updated_at": updated_at}
        if actor != "member" or self._chance(0.5):  # it may be left to the default
            body["actor"] = actor
        recorded_at = updated_at + self._up_to(hours=0.01)
        return Told(recorded_at, "profile-update", {"user_id": self.member.user_id}, body)

    def _membership(self, status: str, at: datetime) -> Told:
        member = self.member
        body: dict[str, str | datetime] = {"status": status, "joined_at": member.joined_at}
        if member.role != "member":
            body["role"] = member.role
        if member.display_name is not None:
            body["display_name"] = member.display_name
        return Told(at + self._up_to(hours=1), "membership", self._ids(), body)

    def _ids(self, event: Event | None = None) -> dict[str, str]:
        ids = {"org_id": self.member.org_id, "user_id": self.member.user_id}
        return ids if event is None else {**ids, "event_id": event.event_id}

    def _chance(self, share: float) -> bool:
        return self.rng.random() < share

    def _pick(self, rare: str, share: float, usual: str = "attended") -> str:
        return rare if self._chance(share) else usual

    def _up_to(self, *, hours: float) -> timedelta:
        return timedelta(microseconds=int(self.rng.random() * hours * 3_600_000_000))
