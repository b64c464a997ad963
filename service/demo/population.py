"""A made-up population and the records that its organisations' systems would send.

The same seed and arguments give the same records, byte for byte. Names are combined at random;
nobody is meant by them. Beside it, for import from here: plain `load`, and real attendance.
"""

import heapq
import random
import uuid
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from service.demo.input_record import InputRecord
from service.demo.load import load
from service.demo.member_life import LONGEST_RSVP_LEAD_DAYS, Event, Life, Member, Rates, Told
from service.demo.real_data import contribution_days, southern_women
from service.demo.sending import Sender

__all__ = ["InputRecord", "Population", "Rates", "contribution_days", "load", "southern_women"]

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "engagement-scoring/population")
_PLACES = ("Harbour", "Mill Lane", "Northgate", "Old Town", "Riverside", "Hillcrest", "Parkside")
_PURPOSES = ("Rowing Club", "Chamber Choir", "Makers", "Alumni", "Traders")
_FIRST_NAMES = ("Ama", "Bela", "Chidi", "Dana", "Emre", "Freya", "Goran", "Hana", "Ines", "Jun")
_LAST_NAMES = ("Abara", "Brandt", "Castell", "Dunmore", "Eklund", "Farrow", "Ito", "Khoury", "Lind")
_EVENT_SLOTS = {1: 19, 5: 10}  # weekday: hour; Tuesday evening and Saturday morning
_OFFSETS_H = (0, 1, -5, 9)
_LONGEST_MEMBERSHIP_DAYS = 1_100
_JOINED_BEFORE = 0.7


@dataclass(frozen=True)
class Organisation:
    """A made-up organisation; its systems write times with `offset`."""

    org_id: str
    name: str
    offset: timezone
    events: list[Event]


class Population:
    """Organisations, members and their activity in the `days` before `ends_at`.

    `members` counts memberships over all organisations, of which the earlier ones are larger; a
    few people are in two. Nothing is recorded after `ends_at`; what was checked into early lies up
    to 20 h after it. Records are late, repeated, corrected and bad at the given rates.
    """

    def __init__(
        self,
        seed: int,
        organisations: int = 3,
        members: int = 5_000,
        days: int = 400,
        *,
        ends_at: datetime,
        rates: Rates | None = None,
    ) -> None:
        self.rates = rates or Rates()
        self.ends_at = ends_at.astimezone(UTC)
        self.starts_at = self.ends_at - timedelta(days=days)
        self._seed = seed
        self._member_count = members
        self._namespace = uuid.uuid5(_NAMESPACE, str(seed))
        self.organisations = [self._organisation(number) for number in range(organisations)]

    def records(self) -> Iterator[InputRecord]:
        """All records in the order in which they are sent; each call starts anew.

        Keeps the members in memory, not the records.
        """
        rng = self._rng("records")
        lives = [
            Life(member, self.rates, rng).tell(_since(member.joined_at, organisation.events))
            for organisation, member in self.members()
        ]
        told = heapq.merge(self._openings(), *lives, key=lambda one: one.recorded_at)
        sender = Sender(
            self.rates,
            rng,
            ends_at=self.ends_at,
            message_id=lambda number: self._id(f"message/{number}"),
            offsets={one.org_id: one.offset for one in self.organisations},
        )
        return sender.send(told)

    def members(self) -> list[tuple[Organisation, Member]]:
        """Every membership as it begins, with its organisation."""
        rng = self._rng("members")
        weights = [1 / number for number in range(1, len(self.organisations) + 1)]
        people: dict[str, set[str]] = {}
        found = []
        for number in range(self._member_count):
            (organisation,) = rng.choices(self.organisations, weights)
            user_id = self._id(f"user/{number}")
            if people and rng.random() < self.rates.second_organisation:
                someone = self._id(f"user/{rng.randrange(number)}")
                if organisation.org_id not in people.get(someone, {organisation.org_id}):
                    user_id = someone
            people.setdefault(user_id, set()).add(organisation.org_id)
            found.append((organisation, self._member(rng, organisation, user_id)))
        for _, member in found:
            if rng.random() < self.rates.erasures and len(people[member.user_id]) == 1:
                member.erased_at = self.starts_at + rng.random() * (self.ends_at - self.starts_at)
        return found

    def _member(self, rng: random.Random, organisation: Organisation, user_id: str) -> Member:
        if rng.random() < _JOINED_BEFORE:
            joined_at = self.starts_at - timedelta(days=rng.random() * _LONGEST_MEMBERSHIP_DAYS)
        else:
            joined_at = self.starts_at + rng.random() * (self.ends_at - self.starts_at)
        named = rng.random() < 0.9  # noqa: PLR2004 - some organisations tell no names
        name = f"{rng.choice(_FIRST_NAMES)} {rng.choice(_LAST_NAMES)}"
        return Member(
            org_id=organisation.org_id,
            user_id=user_id,
            joined_at=joined_at,
            keenness=rng.betavariate(0.9, 3.5),
            display_name=name if named else None,
            role="admin" if rng.random() < self.rates.admins else "member",
            has_record=rng.random() >= self.rates.without_membership,
            engaged=rng.random() < _JOINED_BEFORE,
        )

    def _organisation(self, number: int) -> Organisation:
        name = f"{_PLACES[number % len(_PLACES)]} {_PURPOSES[number % len(_PURPOSES)]}"
        if number >= len(_PLACES) * len(_PURPOSES):
            name += f" {number}"
        org_id = name.lower().replace(" ", "-")
        offset = timezone(timedelta(hours=_OFFSETS_H[number % len(_OFFSETS_H)]))
        return Organisation(org_id, name, offset, self._events(org_id))

    def _events(self, org_id: str) -> list[Event]:
        """Two events a week; the last ones are still to come at `ends_at`."""
        events = []
        midnight = self.starts_at.replace(hour=0, minute=0, second=0, microsecond=0)
        until = self.ends_at + timedelta(days=LONGEST_RSVP_LEAD_DAYS)
        while midnight < until:
            midnight += timedelta(days=1)
            hour = _EVENT_SLOTS.get(midnight.weekday())
            if hour is not None:
                event_id = f"{org_id}.{midnight:%Y-%m-%d}"
                events.append(Event(event_id, midnight + timedelta(hours=hour)))
        return events

    def _openings(self) -> Iterator[Told]:
        """The organisations, each as it was founded; the first is renamed half-way."""
        founded_at = self.starts_at - timedelta(days=_LONGEST_MEMBERSHIP_DAYS)
        for one in self.organisations:
            body: dict[str, str | datetime] = {"name": one.name, "status": "active"}
            yield Told(founded_at, "organization", {"org_id": one.org_id}, body)
        for one in self.organisations[:1]:
            renamed_at = self.starts_at + (self.ends_at - self.starts_at) / 2
            body = {"name": f"{one.name} Society", "status": "active"}
            yield Told(renamed_at, "organization", {"org_id": one.org_id}, body)

    def _rng(self, purpose: str) -> random.Random:
        return random.Random(f"{purpose} {self._seed}")  # noqa: S311 - made-up data, no secrets

    def _id(self, name: str) -> str:
        return str(uuid.uuid5(self._namespace, name))


def _since(instant: datetime, events: list[Event]) -> list[Event]:
    return events[bisect_left(events, instant, key=lambda event: event.starts_at) :]
