"""Messages by partition: where other clients look for them, in order, of any size."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from aiokafka import AIOKafkaProducer
from confluent_kafka import Consumer, Producer

from streams.partition_batches import Header, Key, PartitionBatches
from tests.servers import KafkaBroker, make_topics

KEYS = [f"club-{n % 7}:member-{n}-ä" for n in range(300)]
BATCH_BYTES = 4_096
Message = tuple[bytes, bytes | None, list[Header]]


def body_of(number: int) -> bytes | None:
    """Some are tombstones, some fill a batch of their own, and more."""
    if number % 50 == 0:
        return None
    return b"%d" % number + b"x" * (3 * BATCH_BYTES if number % 41 == 0 else 200)


async def test_they_arrive_in_order_where_other_clients_put_them(
    kafka_broker: KafkaBroker, topic_prefix: str
) -> None:
    theirs, ours = f"{topic_prefix}theirs", f"{topic_prefix}ours"
    make_topics(kafka_broker.bootstrap, [theirs, ours], partitions=5)
    messages: list[Message] = [
        (key.encode(), body_of(number), [("number", b"%d" % number)])
        for number, key in enumerate(KEYS + KEYS[::2])
    ]
    other = Producer({"bootstrap.servers": kafka_broker.bootstrap, "partitioner": "murmur2_random"})
    for key, body, headers in messages:
        other.produce(theirs, body, key, headers=[*headers])
    assert other.flush(30) == 0

    async with AIOKafkaProducer(
        bootstrap_servers=kafka_broker.bootstrap,
        enable_idempotence=True,
        max_batch_size=BATCH_BYTES,
    ) as producer:
        batches = PartitionBatches(producer)
        for key, body, headers in messages:
            await batches.add(ours, Key.of(key.decode()), body, headers)
        sent = await batches.send()
        for future in sent:
            await future
    assert len(sent) > 8

    assert read(kafka_broker.bootstrap, ours, len(messages)) == read(
        kafka_broker.bootstrap, theirs, len(messages)
    )


def read(bootstrap: str, topic: str, count: int) -> dict[int, list[Any]]:
    """Partition -> messages in order."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": topic, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    found: defaultdict[Any, list[Any]] = defaultdict(list)
    while sum(map(len, found.values())) < count:
        messages = consumer.consume(count, timeout=20)
        assert messages
        for one in messages:
            found[one.partition()].append((one.key(), one.value(), one.headers()))
    consumer.close()
    return dict(found)
