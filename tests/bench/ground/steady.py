"""A producer of its own process that sends records at an even rate, some of them probes.

A probe is the first record of somebody never heard of before, so it makes exactly one change. Its
user id carries the monotonic time (microseconds) at which it was sent; on Linux that clock is one
for all processes. The other records are a backlog's: the usual repeats and corrections.

Arguments: bootstrap servers, topic, records/s, seconds, share of probes, members, and how many of
the first records (which somebody has sent before) to leave out.
Prints `ready` when it could begin, begins on a line from standard input, prints how many records
and probes it has sent and by how much it was late at worst (seconds).
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from confluent_kafka import Producer

from service.demo.input_record import InputRecord
from tests.bench.ground.backlog import records_for
from tests.bench.ground.records import attendance

TICK_S = 0.005
PROBE = "probe"
ORGANISATION = "probed"


def sent_at_s(user_id: str) -> float | None:
    """When a probe was sent (monotonic); None for other people."""
    words = user_id.split("-")
    return int(words[1]) / 1e6 if words[0] == PROBE else None


class Steady:
    """Sends what is due, tick by tick."""

    def __init__(self, producer: Producer, topic: str, probe_every: int) -> None:
        self._producer = producer
        self._topic = topic
        self._every = probe_every
        self._at = datetime.now(UTC) - timedelta(hours=1)
        self.sent = 0
        self.probes = 0

    def send(self, others: Iterator[InputRecord], until: int) -> None:
        """Send records up to the number `until`."""
        while self.sent < until:
            self.sent += 1
            if self.sent % self._every == 0:
                self.probes += 1
                user = f"{PROBE}-{time.monotonic_ns() // 1000}-{self.probes}"
                record = attendance(ORGANISATION, user, "first-event", "attended", self._at)
            else:
                record = next(others)
            self._producer.produce(self._topic, record.value, record.key)
        self._producer.poll(0)

    def finish(self) -> None:
        """Wait until the broker has everything."""
        if self._producer.flush(60):
            raise RuntimeError("the broker does not take the records")


def run(arguments: list[str]) -> None:
    """Send for as long as asked, then say what was sent."""
    bootstrap, topic, rate, seconds, share, members, skip = arguments
    total = int(float(rate) * float(seconds))
    steady = Steady(
        Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "acks": "all",
                "queue.buffering.max.messages": 1_000_000,
            }
        ),
        topic,
        max(1, round(1 / float(share))),
    )
    records = records_for(int(skip) + total, int(members))
    others = iter(list(itertools.islice(records, int(skip), None)))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    late_s = 0.0
    began = time.monotonic()
    while steady.sent < total:
        elapsed = time.monotonic() - began
        steady.send(others, min(total, int(elapsed * float(rate))))
        late_s = max(late_s, time.monotonic() - began - steady.sent / float(rate))
        time.sleep(TICK_S)
    steady.finish()
    sys.stdout.write(f"{steady.sent} {steady.probes} {late_s:.4f}\n")


if __name__ == "__main__":
    run(sys.argv[1:])
