"""Reads topics without being anybody's consumer group: to look, to compare, to count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from service.errors import NotReady, Retryable
from service.instants import from_kafka
from service.settings import Settings
from streams.connection import away, client_arguments
from streams.reading import guard
from streams.topics import partitions_of

POLL_MS: Final = 250
MAX_RECORDS: Final = 5_000
SILENCE_S: Final = 30.0


class Record(NamedTuple):
    """One record as it lies on the topic; `timestamp` is Kafka's."""

    topic: str
    partition: int
    offset: int
    timestamp: datetime
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class Extent(NamedTuple):
    """The first offset that a partition has, and the one after its last readable record."""

    first: int
    end: int


class Reader:
    """Reads whole topics from where it was opened on. See `reading`."""

    def __init__(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        self._consumer = consumer
        self._partitions = partitions

    async def page(self) -> list[Record]:
        """What has come, in order per partition; empty after a short wait. Raises Retryable."""
        with _translated():
            batches = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_RECORDS)
        return [
            Record(
                one.topic,
                one.partition,
                one.offset,
                from_kafka(one.timestamp),
                one.key,
                one.value,
                one.headers,
            )
            for records in batches.values()
            for one in records
        ]

    async def follow(self) -> AsyncIterator[Record]:
        """Every record, for ever."""
        while True:
            for record in await self.page():
                yield record

    async def until_end(self) -> AsyncIterator[Record]:
        """Every record up to what was the end of the topics at the first call.

        Raises Retryable when the brokers stop answering on the way.
        """
        ends = await self._ends()
        moved_at = time.monotonic()
        while await self._left(ends):
            records = await self.page()
            if records:
                moved_at = time.monotonic()
            for record in records:
                if record.offset < ends[record.topic, record.partition]:
                    yield record
            if time.monotonic() - moved_at > SILENCE_S:
                raise Retryable(f"broker: no record for {SILENCE_S:.0f} s, but more should come")

    async def _ends(self) -> dict[tuple[str, int], int]:
        with _translated():
            ends = await self._consumer.end_offsets(self._partitions)
        return {(tp.topic, tp.partition): end for tp, end in ends.items()}

    async def _left(self, ends: dict[tuple[str, int], int]) -> bool:
        for tp in self._partitions:
            with _translated():
                position = await self._consumer.position(tp)
            if position < ends[tp.topic, tp.partition]:
                return True
        return False


@asynccontextmanager
async def reading(
    settings: Settings, topics: Collection[str], *, from_beginning: bool
) -> AsyncIterator[Reader]:
    """A reader of all partitions of these topics, from their beginning or from now on.

    Sees committed records only. Raises NotReady for a missing topic, Retryable without a broker.
    """
    async with _consumer(settings) as consumer:
        partitions = await _partitions(settings, topics)
        with _translated():
            consumer.assign(partitions)
            if from_beginning:
                await consumer.seek_to_beginning(*partitions)
            else:
                await consumer.seek_to_end(*partitions)
            # Seeking is lazy; "from now on" has to mean now.
            await asyncio.gather(*(consumer.position(tp) for tp in partitions))
        yield Reader(consumer, partitions)


async def extents(settings: Settings, topics: Collection[str]) -> dict[tuple[str, int], Extent]:
    """Where each partition of those of the topics that exist begins and ends."""
    async with _consumer(settings) as consumer:
        found = await partitions_of(settings, topics)
        partitions = [TopicPartition(name, number) for name in found for number in found[name]]
        if not partitions:
            return {}
        with _translated():
            first = await consumer.beginning_offsets(partitions)
            end = await consumer.end_offsets(partitions)
    return {(tp.topic, tp.partition): Extent(first[tp], end[tp]) for tp in partitions}


async def has_records(settings: Settings, topic: str, partition: int, offset: int) -> bool:
    """Whether the partition has a record from this offset on, not only marks of transactions."""
    async with _consumer(settings) as consumer:
        tp = TopicPartition(topic, partition)
        with _translated():
            consumer.assign([tp])
            consumer.seek(tp, offset)
            end = (await consumer.end_offsets([tp]))[tp]
            deadline = time.monotonic() + SILENCE_S
            while await consumer.position(tp) < end and time.monotonic() < deadline:
                if await consumer.getmany(tp, timeout_ms=POLL_MS, max_records=1):
                    return True
    return False


@asynccontextmanager
async def _consumer(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        **client_arguments(settings),
        group_id=None,
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=1024 * 1024,
    )
    try:
        with _translated():
            await consumer.start()
        guard(consumer, wraps=True)
        yield consumer
    finally:
        await consumer.stop()


@contextmanager
def _translated() -> Iterator[None]:
    """Around what asks the brokers alone: an error of whoever uses what they say is not theirs."""
    try:
        yield
    except (KafkaError, OSError) as error:
        raise away(error) from error


async def _partitions(settings: Settings, topics: Collection[str]) -> list[TopicPartition]:
    found = await partitions_of(settings, topics)
    missing = sorted(set(topics) - found.keys())
    if missing:
        raise NotReady(f"missing topics {', '.join(missing)}: run `engagement topics apply`")
    return [TopicPartition(name, number) for name in topics for number in found[name]]
