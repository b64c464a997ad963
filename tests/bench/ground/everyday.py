"""A producer of its own process that sends what clubs' systems send on a day, at an even rate.

All five kinds, about a fixed number of members: attendance and answers with corrections, profile
updates, people who leave, come back and are erased, organisations that change their names, and now
and then a record that nobody can apply.

Arguments: bootstrap servers, a JSON object of kind -> topic, records/s, seconds, members.
Sends every organisation and member and prints how many records that was; begins on a line from
standard input; then prints how many it has sent altogether about every second, and at the end.
"""

from __future__ import annotations

import json
import random
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from confluent_kafka import Producer

from service.demo.input_record import InputRecord, key_of, value_of

SEED = 17
ORGANISATIONS = 20
TICK_S = 0.02
REPORT_S = 1.0
# Attendance and answers are about the last so many days: some of them leave a window meanwhile.
DAYS = 100
RECENT = 2_000  # activity that may still be corrected
CORRECTIONS = 0.05
SHARES = {
    "attendance": 0.55,
    "rsvp": 0.25,
    "profile": 0.1,
    "membership": 0.0945,
    "organization": 0.005,
    "erasure": 0.0001,
    "nonsense": 0.0004,
}
Body = dict[str, Any]


class Everyday:
    """Writes the records; remembers a bounded number of them, to correct."""

    def __init__(self, members: int) -> None:
        self._rng = random.Random(SEED)
        self._members = members
        self._recent: deque[tuple[str, Body]] = deque(maxlen=RECENT)

    def opening(self) -> Iterator[InputRecord]:
        """Every organisation and every member."""
        for number in range(ORGANISATIONS):
            yield self._organization(number)
        for number in range(self._members):
            yield self._membership(number, "active")

    def records(self) -> Iterator[InputRecord]:
        """Whatever comes next, without an end."""
        kinds, shares = list(SHARES), list(SHARES.values())
        while True:
            (kind,) = self._rng.choices(kinds, shares)
            yield self._record(kind, self._rng.randrange(self._members))

    def _record(self, kind: str, number: int) -> InputRecord:
        if kind in {"attendance", "rsvp"}:
            return self._activity(kind, number)
        if kind == "membership":
            return self._membership(number, self._rng.choice(("active", "active", "left")))
        if kind == "organization":
            return self._organization(number % ORGANISATIONS)
        ids = self._ids(number)
        if kind == "erasure":
            return InputRecord("membership", key_of(ids), None)
        if kind == "nonsense":
            return InputRecord("attendance", key_of(ids), b"{}")
        at = self._past()
        user = {"user_id": ids["user_id"]}
        return self._written("profile-update", user, {"updated_at": at, "actor": "member"}, at)

    def _activity(self, kind: str, number: int) -> InputRecord:
        if self._recent and self._rng.random() < CORRECTIONS:
            kind, body = self._rng.choice(self._recent)
            spoilt = {"status": "absent"} if kind == "attendance" else {"response": "withdrawn"}
            return self._written(kind, body, spoilt, datetime.now(UTC))
        at = self._past()
        if kind == "attendance":
            said: Body = {"status": "attended", "occurred_at": at}
        else:
            said = {"response": "going", "responded_at": at}
        body = {**self._ids(number), "event_id": f"event-{at:%Y-%m-%d}", **said}
        self._recent.append((kind, body))
        return self._written(kind, body, {}, at)

    def _membership(self, number: int, status: str) -> InputRecord:
        now = datetime.now(UTC)
        joined_at = now - timedelta(days=number % 1_500)
        said = {"status": status, "display_name": f"Member {number}", "joined_at": joined_at}
        return self._written("membership", self._ids(number), said, now)

    def _organization(self, number: int) -> InputRecord:
        name = f"Club {number} of {self._rng.randrange(1_000)}"
        said = {"name": name, "status": "active"}
        return self._written("organization", {"org_id": f"club-{number}"}, said, datetime.now(UTC))

    def _written(self, kind: str, ids: Body, said: Body, recorded_at: datetime) -> InputRecord:
        body = {"id": str(uuid.uuid4()), **ids, **said, "recorded_at": recorded_at}
        plain = {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in body.items()
        }
        return InputRecord(kind, key_of(ids), value_of(plain))

    def _ids(self, number: int) -> dict[str, str]:
        return {"org_id": f"club-{number % ORGANISATIONS}", "user_id": f"user-{number}"}

    def _past(self) -> datetime:
        return datetime.now(UTC) - timedelta(days=DAYS * self._rng.random())


class Sending:
    """Hands records to the broker and counts them."""

    def __init__(self, bootstrap: str, topics: dict[str, str]) -> None:
        self._topics = topics
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "acks": "all",
                "linger.ms": 5,
                "queue.buffering.max.messages": 200_000,
            }
        )
        self.sent = 0

    def send(self, record: InputRecord) -> None:
        """Queue one."""
        self._producer.produce(self._topics[record.kind], record.value, record.key)
        self.sent += 1
        self._producer.poll(0)

    def finish(self) -> None:
        """Wait until the broker has everything."""
        if self._producer.flush(60):
            raise RuntimeError("the broker does not take the records")


def say(text: object) -> None:
    """One line to whoever started this."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run(arguments: list[str]) -> None:
    """Send for as long as asked."""
    bootstrap, topics, rate, seconds, members = arguments
    everyday = Everyday(int(members))
    sending = Sending(bootstrap, json.loads(topics))
    for record in everyday.opening():
        sending.send(record)
    sending.finish()
    opened = sending.sent
    say(opened)
    sys.stdin.readline()
    records = everyday.records()
    began = reported = time.monotonic()
    while (elapsed := time.monotonic() - began) < float(seconds):
        while sending.sent - opened < elapsed * float(rate):
            sending.send(next(records))
        if time.monotonic() - reported >= REPORT_S:
            reported = time.monotonic()
            say(sending.sent)
        time.sleep(TICK_S)
    sending.finish()
    say(sending.sent)


if __name__ == "__main__":
    run(sys.argv[1:])
