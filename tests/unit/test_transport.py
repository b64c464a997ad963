"""How often a consumer asks for records, and what it makes of them."""

from __future__ import annotations

from asyncio import Event
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.types import TP
from mode.utils.queues import FlowControlEvent

from streams.batches import Batch
from streams.transport import (
    IDLE,
    POLL_ALL_S,
    POLL_SOME_S,
    STEADY,
    BatchConsumer,
    ConsumerThread,
    Fetched,
    FetchPace,
    _cut,
)

PARTITION = TP("attendance", 0)


class Scene:
    """A thread whose fetches bring what the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: dict[TP, list[str]] = {}
        self.consumer: Any = SimpleNamespace(
            _fetcher=SimpleNamespace(
                _records={},
                _fetch_min_bytes=STEADY.min_bytes,
                _fetch_max_wait_ms=STEADY.max_wait_ms,
            ),
            _subscription=SimpleNamespace(subscription=None),
        )
        self._thread = ConsumerThread.__new__(ConsumerThread)

        async def fetch(*_: object) -> dict[TP, list[str]]:
            return self.found

        monkeypatch.setattr(AIOKafkaConsumerThread, "_fetch_records", fetch)

    async def fetch(self, found: dict[TP, list[str]], timeout_s: float) -> FetchPace:
        """One fetch; the pace of the next."""
        self.found = found
        await self._thread._fetch_records(self.consumer, {PARTITION}, timeout_s)
        fetcher = self.consumer._fetcher
        return FetchPace(fetcher._fetch_min_bytes, fetcher._fetch_max_wait_ms)


async def test_a_consumer_without_records_asks_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    assert await scene.fetch({}, POLL_ALL_S) == IDLE
    assert await scene.fetch({PARTITION: ["record"]}, POLL_ALL_S) == STEADY


async def test_but_not_while_others_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what they make room for would wait for the end of a fetch that brings nothing."""
    scene = Scene(monkeypatch)
    assert await scene.fetch({}, POLL_SOME_S) == STEADY


@pytest.mark.parametrize(("count", "sizes"), [(3, [3]), (10, [10]), (15, [8, 7]), (21, [7, 7, 7])])
def test_what_was_fetched_is_cut_into_parts_of_one_size(count: int, sizes: list[int]) -> None:
    """A small rest would be taken for what a steady stream brings. None is left out."""
    records = [SimpleNamespace(offset=offset) for offset in range(5, 5 + count)]
    batches = _cut(PARTITION, 5, 6 + count, records, 10)
    assert [len(batch.records) for batch in batches] == sizes
    assert [record for batch in batches for record in batch.records] == records
    assert batches[0].start == 5
    assert all(one.end == following.start for one, following in pairwise(batches))
    assert batches[-1].end == 6 + count


class Lanes:
    """Lanes with room that expect every partition at offset 5; `on_end` is called on the way."""

    batch_max_records = 10

    def __init__(self) -> None:
        self.reserved: list[Batch] = []
        self.faults: dict[TP, Exception] = {}
        self.on_end: Callable[[], None] = lambda: None

    def polled(self) -> None:
        pass

    def with_room(self, tps: set[TP]) -> set[TP]:
        return tps

    def expected(self, tp: TP) -> int | None:
        return None if tp.partition == 9 else 5

    def reserve(self, _: TP, batch: Batch) -> bool:
        self.reserved.append(batch)
        return True

    def saw_end(self, *_: object) -> None:
        self.on_end()

    def unreadable(self, tp: TP, error: Exception) -> None:
        self.faults[tp] = error


class Consumer(BatchConsumer):
    """A consumer whose one fetch brings what the test says."""

    flow_active = True
    should_stop = False

    def __init__(self, found: dict[TP, Fetched]) -> None:
        self.found = found
        self.lanes = Lanes()
        self.app: Any = SimpleNamespace(lanes=self.lanes, consumer_generation_id=1)

    def _get_active_partitions(self) -> set[TP]:
        return set(self.found)

    async def _getmany(self, *_: object) -> Any:
        return self.found

    def highwater(self, _: TP) -> int:
        return 7

    async def messages(self) -> list[tuple[TP, Any]]:
        """All that one fetch gives."""
        return [each async for each in self.getmany(1.0)]


def _records(*offsets: int) -> Fetched:
    records = [SimpleNamespace(offset=offset, timestamp=1_000) for offset in offsets]
    return Fetched(offsets[0], offsets[-1] + 1, records)


async def test_one_message_holds_what_came_of_a_topic() -> None:
    """Each partition's batch is whole, and those of partitions that are not ours are left out."""
    first, second, other, foreign = (
        TP("attendance", 0), TP("attendance", 1), TP("rsvp", 0), TP("attendance", 9),
    )  # fmt: skip
    consumer = Consumer(
        {first: _records(5, 6), other: _records(5), second: _records(5), foreign: _records(5)}
    )
    messages = await consumer.messages()
    assert [tp for tp, _ in messages] == [first, other]
    assert [(m.topic, m.partition, m.offset, m.generation_id) for _, m in messages] == [
        ("attendance", 0, 6, 1),
        ("rsvp", 0, 5, 1),
    ]
    ranges = [[(b.partition, b.start, b.end) for b in m.value] for _, m in messages]
    assert ranges == [[(0, 5, 7), (1, 5, 6)], [(0, 5, 6)]]


async def test_what_a_rebalance_overtakes_is_dropped() -> None:
    """Also where it comes after the last partition was looked at."""
    consumer = Consumer({PARTITION: _records(5)})
    consumer.lanes.on_end = lambda: setattr(consumer.app, "consumer_generation_id", 2)
    assert await consumer.messages() == []
    assert len(consumer.lanes.reserved) == 1


async def test_nothing_flows_while_partitions_are_claimed() -> None:
    """A rebalance that was overtaken ends by letting everything flow: nobody waits for it."""
    flow = FlowControlEvent()

    class Claiming(Consumer):
        def __init__(self, found: dict[TP, Fetched]) -> None:
            super().__init__(found)
            self.can_resume_flow, self.suspend_flow = Event(), Event()
            self._read_offset, self._committed_offset = {}, {}

        async def wait(self, *_: object, **__: object) -> Any:
            return None

        async def seek_to_committed(self) -> dict[TP, int]:
            assert not flow.is_active()
            assert await self.messages() == []
            return {PARTITION: 5}

    consumer = Claiming({PARTITION: _records(5)})
    consumer.app.flow_control = flow
    flow.resume()
    consumer.resume_flow()
    await consumer.perform_seek()
    assert not consumer.flow_active
    assert consumer.lanes.reserved == []
    flow.resume()
    consumer.resume_flow()
    assert len(await consumer.messages()) == 1


async def test_a_partition_that_cannot_be_read_leaves_the_others_alone() -> None:
    fault = ValueError("damaged")
    consumer = Consumer(
        {PARTITION: Fetched(5, 5, (), unreadable=fault), TP("attendance", 1): _records(5)}
    )
    (message,) = [message for _, message in await consumer.messages()]
    assert [batch.partition for batch in message.value] == [1]
    assert consumer.lanes.faults == {PARTITION: fault}
