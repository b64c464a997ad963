"""Attendance records by the million, for tests and benchmarks: fast, plain, always the same."""

import hashlib
import random
import uuid
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from service.demo.input_record import InputRecord

DEFAULT_ENDS_AT = datetime(2026, 1, 1, tzinfo=UTC)
REACH = 1_000
"""How many records back a repeat or correction reaches; how many may be held to come later."""

_DAYS = 400
_EVENTS = 2_000
_LEARNED_WITHIN_US = 3_600_000_000
_STATUSES = ("absent", "void", "partial")
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "engagement-scoring/load")


class _Sent(NamedTuple):
    record: InputRecord
    member: int
    event: int


def load(
    seed: int,
    records: int,
    members: int,
    duplicates: float = 0.10,
    shuffled: float = 0.10,
    corrections: float = 0.02,
    *,
    organisations: int = 3,
    ends_at: datetime = DEFAULT_ENDS_AT,
) -> Iterator[InputRecord]:
    """Exactly `records` attendance records of 260 bytes, from the 400 days before `ends_at`.

    Roughly in the order of time. `duplicates` of them repeat an earlier one byte for byte,
    `corrections` give an earlier one another status (and so another length), `shuffled` come after
    their turn. Some members come far more often than others; with few records some never come.
    """
    rng = random.Random(f"load {seed}")  # noqa: S311 - made-up data, no secrets
    writer = _Writer(seed, members, organisations, ends_at)
    held: list[InputRecord] = []
    for record in _in_turn(rng, writer, records, duplicates, corrections):
        if rng.random() >= shuffled:
            yield record
        elif len(held) < REACH:
            held.append(record)
        else:
            slot = int(rng.random() * REACH)
            yield held[slot]
            held[slot] = record
    yield from held


def _in_turn(
    rng: random.Random, writer: "_Writer", records: int, duplicates: float, corrections: float
) -> Iterator[InputRecord]:
    recent: deque[_Sent] = deque(maxlen=REACH)
    for number in range(records):
        dice = rng.random()
        if recent and dice < duplicates + corrections:
            earlier = recent[int(rng.random() * len(recent))]
            if dice < duplicates:
                yield earlier.record
                continue
            member, event, status = earlier.member, earlier.event, rng.choice(_STATUSES)
            learned_us = _LEARNED_WITHIN_US
        else:
            member = int(rng.random() ** 1.7 * writer.members)
            event, status = number * _EVENTS // records, "attended"
            learned_us = 0
        learned_us += 1 + int(rng.random() * _LEARNED_WITHIN_US)
        record = writer.write(number, member, event, status, learned_us)
        recent.append(_Sent(record, member, event))
        yield record


class _Writer:
    """Puts records into words; what is the same for many of them is written once."""

    def __init__(self, seed: int, members: int, organisations: int, ends_at: datetime) -> None:
        self.members = members
        self._namespace = uuid.uuid5(_NAMESPACE, str(seed)).bytes
        self._keys = [
            f"load-{number % organisations:02}:{self._id(f'user/{number}')}"
            for number in range(members)
        ]
        starts_at = ends_at.astimezone(UTC) - timedelta(days=_DAYS)
        step = timedelta(days=_DAYS) / _EVENTS
        self._starts = [(starts_at + number * step) for number in range(_EVENTS)]
        self._events = [
            (f"community-event-2026-{number:04}", _written(self._starts[number]))
            for number in range(_EVENTS)
        ]

    def write(
        self, number: int, member: int, event: int, status: str, learned_us: int
    ) -> InputRecord:
        key = self._keys[member]
        org_id, _, user_id = key.partition(":")
        event_id, occurred_at = self._events[event]
        recorded_at = _written(self._starts[event] + timedelta(microseconds=learned_us))
        value = (
            f'{{"id":"{self._id(str(number))}","org_id":"{org_id}","user_id":"{user_id}",'
            f'"event_id":"{event_id}","status":"{status}",'
            f'"occurred_at":"{occurred_at}","recorded_at":"{recorded_at}"}}'
        )
        return InputRecord("attendance", key.encode(), value.encode())

    def _id(self, name: str) -> str:
        """The uuid5 of the name, without the detour over a UUID object, which takes longer."""
        digest = hashlib.sha1(self._namespace + name.encode(), usedforsecurity=False).hexdigest()
        variant = "89ab"[int(digest[16], 16) % 4]
        return (
            f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"
        )


def _written(instant: datetime) -> str:
    return instant.isoformat(timespec="microseconds")[:-6] + "Z"
