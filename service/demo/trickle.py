"""What happens while people look on: a few records a second about a made-up population, now."""

from __future__ import annotations

import random
import uuid
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from service.demo.bad_records import bad_record
from service.demo.input_record import InputRecord, key_of, value_of
from service.demo.member_life import Member
from service.demo.population import Population
from service.instants import wire_time

REMEMBERED: Final = 50
# What happens, and how often compared with the others.
WEIGHTS: Final = {
    "attend": 50,
    "respond": 18,
    "update_profile": 10,
    "join": 6,
    "leave": 3,
    "correct": 6,
    "repeat": 4,
    "spoil": 3,
}


class Trickle:
    """Makes records, one at a time; the same seed does the same things in the same order."""

    def __init__(self, population: Population, seed: int, *, staying: str | None = None) -> None:
        """`staying`: a user who never leaves, since somebody is signed in as them."""
        self._rng = random.Random(f"trickle {seed}")  # noqa: S311 - made-up data, no secrets
        self._members = [member for _, member in population.members()]
        self._staying = staying
        self._bodies: deque[dict[str, str]] = deque(maxlen=REMEMBERED)
        self._records: deque[InputRecord] = deque(maxlen=REMEMBERED)
        self._spoilt = 0
        self._doings: dict[str, Callable[[datetime], InputRecord]] = {
            "attend": self._attend,
            "respond": self._respond,
            "update_profile": self._update_profile,
            "join": self._join,
            "leave": self._leave,
            "correct": self._correct,
            "repeat": self._repeat,
            "spoil": self._spoil,
        }

    def next(self, now: datetime) -> InputRecord:
        """Something that happens at this instant."""
        (doing,) = self._rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
        record = self._doings[doing](now)
        self._records.append(record)
        return record

    def _attend(self, now: datetime) -> InputRecord:
        member = self._rng.choice(self._members)
        # One event an hour: who comes to two of them counts twice.
        body = {
            **self._ids(member),
            "event_id": f"{member.org_id}.{now:%Y-%m-%d-%H}",
            "status": "attended",
            "occurred_at": wire_time(now.replace(minute=0, second=0, microsecond=0)),
            "recorded_at": wire_time(now),
        }
        self._bodies.append(body)
        return _record("attendance", body)

    def _respond(self, now: datetime) -> InputRecord:
        member = self._rng.choice(self._members)
        event = now + timedelta(days=self._rng.randint(1, 10))
        return _record(
            "rsvp",
            {
                **self._ids(member),
                "event_id": f"{member.org_id}.{event:%Y-%m-%d}",
                "response": self._rng.choice(("going", "going", "going", "maybe", "declined")),
                "responded_at": wire_time(now),
                "recorded_at": wire_time(now),
            },
        )

    def _update_profile(self, now: datetime) -> InputRecord:
        ids = self._ids(self._rng.choice(self._members))
        del ids["org_id"]
        return _record(
            "profile-update", {**ids, "updated_at": wire_time(now), "recorded_at": wire_time(now)}
        )

    def _join(self, now: datetime) -> InputRecord:
        org_id = self._rng.choice(self._members).org_id
        user_id = f"live-{self._rng.getrandbits(40):010x}"
        member = Member(org_id=org_id, user_id=user_id, joined_at=now, keenness=0.5)
        self._members.append(member)
        return self._membership(member, "active", now)

    def _leave(self, now: datetime) -> InputRecord:
        member = self._rng.choice(self._members)
        if member.user_id == self._staying:
            return self._attend(now)
        return self._membership(member, "left", now)

    def _correct(self, now: datetime) -> InputRecord:
        """Somebody was not there after all."""
        if not self._bodies:
            return self._attend(now)
        body = self._rng.choice(self._bodies)
        return _record(
            "attendance",
            {
                **body,
                "id": self._id(),
                "status": self._rng.choice(("absent", "void")),
                "recorded_at": wire_time(now),
            },
        )

    def _repeat(self, now: datetime) -> InputRecord:
        return self._rng.choice(self._records) if self._records else self._attend(now)

    def _spoil(self, now: datetime) -> InputRecord:
        if not self._bodies:
            return self._attend(now)
        self._spoilt += 1
        body = {**self._rng.choice(self._bodies), "id": self._id()}
        return bad_record(self._spoilt, "attendance", body)

    def _membership(self, member: Member, status: str, now: datetime) -> InputRecord:
        return _record(
            "membership",
            {
                **self._ids(member),
                "status": status,
                "joined_at": wire_time(member.joined_at),
                "recorded_at": wire_time(now),
            },
        )

    def _ids(self, member: Member) -> dict[str, str]:
        return {"id": self._id(), "org_id": member.org_id, "user_id": member.user_id}

    def _id(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))


def _record(kind: str, body: dict[str, str]) -> InputRecord:
    return InputRecord(kind, key_of(body), value_of(body))
