"""What is in topics, read back from their beginning by another client than the product's."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

READ_TIMEOUT_S: Final = 60.0
PAGE: Final = 10_000

Place = tuple[str, int, int]
"""(topic, partition, offset)"""


class Message(NamedTuple):
    """One record of a topic."""

    place: Place
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    recorded_at: datetime
    """Kafka's timestamp."""


class TopicLog(NamedTuple):
    """The committed records of some topics, in order within each partition, and their ends."""

    messages: dict[str, list[Message]]
    ends: dict[tuple[str, int], int]

    def and_later(self, later: TopicLog) -> TopicLog:
        """What was read earlier and what is there now; what is in both counts once."""
        merged = {}
        for topic, messages in later.messages.items():
            known = set(messages)
            merged[topic] = [m for m in self.messages[topic] if m not in known] + messages
        return TopicLog(merged, later.ends)


def read_topics(bootstrap: str, topics: Iterable[str]) -> TopicLog:
    """Everything that is there now. Blocking; raises AssertionError when it takes too long."""
    wanted = list(topics)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "verifier",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "log_level": 0,
        }
    )
    try:
        return _read(consumer, wanted)
    finally:
        consumer.close()


def _read(consumer: Any, topics: list[str]) -> TopicLog:
    known = consumer.list_topics(timeout=30).topics
    missing = [name for name in topics if name not in known]
    assert not missing, f"no topics {missing}"
    parts = [(name, number) for name in topics for number in known[name].partitions]
    consumer.assign([TopicPartition(*part, OFFSET_BEGINNING) for part in parts])
    messages: dict[str, list[Message]] = {name: [] for name in topics}
    open_parts = set(parts)
    deadline = time.monotonic() + READ_TIMEOUT_S
    while open_parts:
        assert time.monotonic() < deadline, f"could not read {open_parts} to their ends"
        for one in consumer.consume(PAGE, timeout=0.2):
            error = one.error()
            if error is None:
                messages[one.topic()].append(_message(one))
            elif error.code() == KafkaError._PARTITION_EOF:
                open_parts.discard((one.topic(), one.partition()))
            else:
                raise AssertionError(error)
    # As the last fetches said; asking would wait behind a fetch each time.
    ends = {
        part: consumer.get_watermark_offsets(TopicPartition(*part), cached=True)[1]
        for part in parts
    }
    return TopicLog(messages, ends)


def _message(one: Any) -> Message:
    _, timestamp_ms = one.timestamp()
    return Message(
        (one.topic(), one.partition(), one.offset()),
        one.key(),
        one.value(),
        tuple(one.headers() or ()),
        datetime.fromtimestamp(timestamp_ms / 1000, UTC),
    )


def header_of(message: Message, name: str) -> str | None:
    """The header of that name as text."""
    found: Mapping[str, bytes | None] = dict(message.headers)
    value = found.get(name)
    return None if value is None else value.decode()
