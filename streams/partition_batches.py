"""Messages of one page, put together by partition before the client sees them.

A message sent by itself costs the client a future, a look at the metadata and a hash of its key in
plain Python, once for each topic. Batches cost that once for thousands of messages.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Self

from aiokafka import AIOKafkaProducer
from murmurhash2 import murmurhash2

Header = tuple[str, bytes | None]

# Java's client began with it, so all others do.
_SEED: Final = 0x9747B28C


class Key(NamedTuple):
    """A message key and what every Kafka client makes of it to choose the partition."""

    value: bytes
    hashed: int

    @classmethod
    def of(cls, text: str) -> Self:
        """The key of this text."""
        value = text.encode()
        # The client's own, in Python, takes ten times as long.
        return cls(value, murmurhash2(value, _SEED) & 0x7FFFFFFF)


class PartitionBatches:
    """Collects messages; of one partition they are sent in the order in which they were added."""

    def __init__(self, producer: AIOKafkaProducer, timestamp_ms: int | None = None) -> None:
        """`timestamp_ms` dates all of them; None: the client's own clock."""
        self._producer = producer
        self._timestamp_ms = timestamp_ms
        self._partitions: dict[str, Sequence[int]] = {}
        self._batches: defaultdict[tuple[str, int], list[Any]] = defaultdict(list)

    async def add(
        self, topic: str, key: Key, value: bytes | None, headers: Sequence[Header]
    ) -> None:
        """Add one message. Raises KafkaError when the topic is not known."""
        if topic not in self._partitions:
            self._partitions[topic] = sorted(await self._producer.partitions_for(topic))
        partitions = self._partitions[topic]
        batches = self._batches[topic, partitions[key.hashed % len(partitions)]]
        message = {
            "timestamp": self._timestamp_ms, "key": key.value, "value": value, "headers": headers,
        }  # fmt: skip
        if not batches or batches[-1].append(**message) is None:
            # The first message fits into any batch.
            batches.append(self._producer.create_batch())
            batches[-1].append(**message)

    async def send(self) -> list[asyncio.Future[object]]:
        """Hand everything over; a future for each batch, which raises what the broker refused."""
        sent = await asyncio.gather(
            *(self._send(*part, batches) for part, batches in self._batches.items())
        )
        return [future for futures in sent for future in futures]

    async def _send(
        self, topic: str, partition: int, batches: Sequence[Any]
    ) -> list[asyncio.Future[object]]:
        # One after the other: the client takes the next when it has sent the one before.
        return [
            await self._producer.send_batch(batch, topic, partition=partition) for batch in batches
        ]
