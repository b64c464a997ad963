"""A topic full of attendance records, always the same for one set of numbers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from confluent_kafka import Producer

from service.demo.input_record import InputRecord
from service.demo.load import load
from tests.bench.ground.servers import Ground

SEED = 8
DUPLICATES = 0.05
CORRECTIONS = 0.02
PARTITIONS = 8
RECORDS_PER_MEMBER = 12


@dataclass(frozen=True)
class Backlog:
    """A filled topic. `facts`: distinct natural keys, so rows of a table that is right."""

    topic: str
    records: int
    members: int
    facts: int
    partitions: int = PARTITIONS


def recent_end() -> datetime:
    """The last midnight: the records are from the 400 days before it, so levels do change."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def records_for(
    count: int, members: int, *, seed: int = SEED, organisations: int = 3
) -> Iterator[InputRecord]:
    """The records of a backlog: skewed members, 5 % duplicates, 2 % corrections, some shuffled."""
    return load(
        seed,
        count,
        members,
        duplicates=DUPLICATES,
        corrections=CORRECTIONS,
        organisations=organisations,
        ends_at=recent_end() - timedelta(seconds=1),
    )


async def fill(
    ground: Ground,
    topic: str,
    count: int,
    *,
    members: int | None = None,
    organisations: int = 3,
    partitions: int = PARTITIONS,
    part: int = 1,
) -> Backlog:
    """Make a topic and fill it. `members` default: one for every 12 records.

    `part`: only the first one of so many equal parts of the records.
    """
    members = members or max(1, count // RECORDS_PER_MEMBER)
    await ground.new_topic(topic, partitions)
    size = max(1, count // part)
    records = itertools.islice(records_for(count, members, organisations=organisations), size)
    facts = await asyncio.to_thread(produce, ground.bootstrap, topic, records)
    return Backlog(topic, size, members, facts, partitions)


def produce(bootstrap: str, topic: str, records: Iterable[InputRecord]) -> int:
    """Send records by key, as other clients partition; gives the number of distinct facts."""
    failures: list[str] = []

    def delivered(error: object, _: object) -> None:
        if error is not None:
            failures.append(str(error))

    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "acks": "all",
            "linger.ms": 50,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 200_000,
        }
    )
    facts: set[bytes] = set()
    iterator = iter(records)
    while chunk := list(itertools.islice(iterator, 10_000)):
        for record in chunk:
            producer.produce(topic, record.value, record.key, on_delivery=delivered)
            assert record.value is not None
            assert record.key is not None
            facts.add(natural_key(record.key, record.value))
        # Waiting here, not for each message: a full queue would raise.
        producer.flush(60)
    if producer.flush(60) or failures:
        raise RuntimeError(f"records were not taken: {failures[:3]}")
    return len(facts)


def natural_key(key: bytes, value: bytes) -> bytes:
    """Member and community event of a record that `load` wrote."""
    start = value.index(b'"event_id":"') + 12
    return key + b"\0" + value[start : value.index(b'"', start)]
