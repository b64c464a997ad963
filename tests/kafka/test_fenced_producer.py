"""Who comes back late is refused wherever somebody newer has sent, and nowhere before."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import ProducerFenced
from confluent_kafka import Consumer, TopicPartition

from service.settings import Settings, load_settings
from streams.fenced_producer import cut_off, start_fenced
from tests.servers import KafkaBroker, make_topics


@pytest.fixture
def settings(kafka_broker: KafkaBroker) -> Settings:
    return load_settings(
        {
            "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap,
            "DATABASE_URL": "postgresql://localhost/unused",
        }
    )


async def test_a_newer_producer_ends_the_one_before(
    kafka_broker: KafkaBroker, settings: Settings, topic_prefix: str
) -> None:
    topic, fence = f"{topic_prefix}level", f"{topic_prefix}relay"
    make_topics(kafka_broker.bootstrap, [topic], partitions=2)
    older = await start_fenced(settings, fence)
    await older.send_and_wait(topic, b"1", b"k", partition=0)
    newer = await start_fenced(settings, fence)
    stranger = await start_fenced(settings, f"{fence}-of-others")
    try:
        # Nobody newer has sent anything yet, so this can't follow what is newer.
        await older.send_and_wait(topic, b"2", b"k", partition=0)
        await newer.send_and_wait(topic, b"3", b"k", partition=0)
        with pytest.raises(ProducerFenced):
            await older.send_and_wait(topic, b"late", b"k", partition=0)
        await older.send_and_wait(topic, b"4", b"k", partition=1)
        await stranger.send_and_wait(topic, b"5", b"k", partition=0)
        await newer.send_and_wait(topic, b"6", b"k", partition=0)
    finally:
        for producer in (older, newer, stranger):
            await cut_off(producer)
    # No marker of a transaction: offsets have no gaps, and the fifth record is the last.
    assert await asyncio.to_thread(read, kafka_broker.bootstrap, topic, 0, 5) == [
        b"1", b"2", b"3", b"5", b"6",
    ]  # fmt: skip


async def test_what_was_not_sent_is_not_sent_late(
    kafka_broker: KafkaBroker, settings: Settings, topic_prefix: str
) -> None:
    """A relay whose step has timed out must not send the rest of its page while it closes."""
    topic = f"{topic_prefix}level"
    make_topics(kafka_broker.bootstrap, [topic], partitions=1)
    producer = await start_fenced(settings, f"{topic_prefix}relay")
    await producer.send_and_wait(topic, b"before", b"k")
    await producer.send(topic, b"late", b"k")
    await cut_off(producer)
    after = await start_fenced(settings, f"{topic_prefix}relay")
    await after.send_and_wait(topic, b"after", b"k")
    await cut_off(after)
    assert await asyncio.to_thread(read, kafka_broker.bootstrap, topic, 0, 2) == [
        b"before", b"after",
    ]  # fmt: skip


async def test_a_request_without_an_answer_is_given_up(
    kafka_broker: KafkaBroker,
    settings: Settings,
    topic_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A broker takes a batch and stays silent; nobody but the producer is told of its end."""
    topic = f"{topic_prefix}level"
    make_topics(kafka_broker.bootstrap, [topic], partitions=1)
    producer = await start_fenced(settings, f"{topic_prefix}relay")
    await producer.send_and_wait(topic, b"before", b"k")
    sent = asyncio.Event()

    async def stay_silent(*_: object) -> None:
        sent.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(producer.client, "send", stay_silent)
    await producer.send(topic, b"late", b"k")
    await asyncio.wait_for(sent.wait(), 10)
    await cut_off(producer)
    assert producer._sender.sender_task.done()


def read(bootstrap: str, topic: str, partition: int, count: int) -> list[bytes | None]:
    """The values of a partition, whose offsets must have no gaps."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": topic, "isolation.level": "read_uncommitted"}
    )
    consumer.assign([TopicPartition(topic, partition, 0)])
    found = consumer.consume(count, timeout=20)
    _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
    consumer.close()
    assert end == len(found) == count
    return [one.value() for one in found]
