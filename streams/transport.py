"""One Faust message is what one fetch brought of one topic: a batch of raw records per partition.

Faust spends its time per message, so the consumer hands over whole batches: measured 236 k
records/s instead of 3.3 k; and those of all partitions at once, which spares the event loop a tenth
of its time in a steady stream of eight partitions. The offsets that count are in PostgreSQL
(`streams.lanes` claims and moves them); topics are declared with `acks=False`, so Faust tracks and
commits nothing.

The position that a fetch started at comes from the consumer's own thread and travels with what was
fetched, be it nothing. If it is not where the lane expects it, records were dropped on the way (a
rebalance, a seek that raced) and the partition is sought back, so nothing can be skipped unseen,
not even the last records of a topic. A position moves by fetching alone: the consumer resets no
offset by itself, an offset that the broker does not have ends the lane, and the next claim finds
out what is missing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import Any, Final, NamedTuple, cast

import aiokafka
import faust
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError
from faust.serializers.schemas import Schema
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams.batches import Batch
from streams.lanes import Lanes
from streams.reading import guard

# How long a poll waits for records when every partition may be fetched, and when some may not.
POLL_ALL_S: Final = 1.0
POLL_SOME_S: Final = 0.02


class FetchPace(NamedTuple):
    """A broker answers a fetch once it has so much for us, or after so long."""

    min_bytes: int
    max_wait_ms: int


# A steady stream would else be fetched record by record, which costs the broker, and a transaction
# each, the database more than the work.
STEADY: Final = FetchPace(8 << 10, 20)
# Where nothing comes at all there is nothing to gather, and asking 50 times a second is in vain.
# Only then: a fetch that waits for other partitions holds up those that have room again.
IDLE: Final = FetchPace(1, 500)


class Fetched(NamedTuple):
    """Records of one partition and the consumer's positions before and after fetching them.

    `end` may lie beyond the last record, or beyond `start` with no record at all: transaction
    markers have offsets too. `missing`: the broker has nothing at `start`. `unreadable`: why that
    which it has there cannot be read.
    """

    start: int | None
    end: int | None
    records: Sequence[Any]
    missing: bool = False
    unreadable: Exception | None = None


class PassThroughSchema(Schema):  # type: ignore[type-arg]
    """Leaves key and value as the transport made them."""

    def loads_key(self, app: Any, message: Any, **_: Any) -> Any:  # noqa: ARG002
        """The message's key, untouched."""
        return message.key

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:  # noqa: ARG002
        """The batches, untouched."""
        return message.value


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """aiokafka in its own thread; notes where each fetch starts."""

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Producers may use transactions; what they aborted never happened. (Faust 0.15.3 offers
        # this only together with its own transactions.)
        consumer._isolation_level = "read_committed"  # noqa: SLF001
        consumer._auto_offset_reset = "none"  # noqa: SLF001
        # Neither does it offer these.
        consumer._fetch_min_bytes = STEADY.min_bytes  # noqa: SLF001
        consumer._fetch_max_wait_ms = STEADY.max_wait_ms  # noqa: SLF001
        return consumer

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109 - Faust's signature
        max_records: int | None = None,
    ) -> Any:
        starts = {tp: _position(consumer, tp) for tp in active_partitions}
        unreadable = guard(consumer)
        try:
            fetched = await super()._fetch_records(
                consumer, active_partitions, timeout, max_records
            )
        except (OffsetOutOfRangeError, NoOffsetForPartitionError) as error:
            return {tp: Fetched(starts.get(tp), None, (), missing=True) for tp in _named(error)}
        if fetched:
            _set_pace(consumer, STEADY)
        elif timeout is not None and timeout >= POLL_ALL_S:
            _set_pace(consumer, IDLE)
        return {
            tp: Fetched(
                start,
                _position(consumer, tp),
                fetched.get(tp, ()),
                unreadable=unreadable.pop(tp, None),
            )
            for tp, start in starts.items()
        }

    def highwater(self, tp: TP) -> int:
        """Where that ends which may be read: beyond it a producer's transaction is open.

        Like Faust's own, None before anything was fetched.
        """
        end: int = self._ensure_consumer().last_stable_offset(tp)
        return end

    async def seek_one(self, tp: TP, offset: int) -> None:
        """Seek, unless the partition is no longer ours."""
        if tp in self.assignment():
            self._ensure_consumer().seek(tp, offset)

    async def commit_advisory(self, offsets: Mapping[TP, int]) -> None:
        """Commit for those that are still ours. Raises KafkaError; never crashes the thread."""
        assigned = self.assignment()
        ours = {
            driver.ensure_aiokafka_TP(tp): offset
            for tp, offset in offsets.items()
            if tp in assigned
        }
        if ours:
            await self._ensure_consumer().commit(ours)


def _set_pace(consumer: aiokafka.AIOKafkaConsumer, pace: FetchPace) -> None:
    """From the next fetch on."""
    # aiokafka takes these for good, but looks at them for each request.
    fetcher = consumer._fetcher  # noqa: SLF001
    fetcher._fetch_min_bytes, fetcher._fetch_max_wait_ms = pace  # noqa: SLF001


def _position(consumer: aiokafka.AIOKafkaConsumer, tp: TP) -> int | None:
    # aiokafka offers the position as a coroutine only, which would look at it too late.
    subscription = consumer._subscription.subscription  # noqa: SLF001
    assignment = subscription.assignment if subscription is not None else None
    if assignment is None or tp not in assignment.tps:
        return None
    state = assignment.state_value(tp)
    return state.position if state.has_valid_position else None


def _named(error: KafkaError) -> list[TP]:
    """The partitions that an error of the fetcher is about."""
    (about,) = error.args
    return [TP(*tp) for tp in (about if isinstance(about, Mapping) else [about])]


class BatchConsumer(driver.Consumer):
    """Fetches only for partitions whose lane has room, and yields one message per topic."""

    app: BatchApp
    _thread: ConsumerThread

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(
        self,
        timeout: float,  # noqa: ASYNC109 - Faust's signature
    ) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Yield (one of its partitions, message whose value is the batches of a topic)."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]
        lanes, generation = self.app.lanes, self.app.consumer_generation_id
        lanes.polled()
        active = self._get_active_partitions()
        wanted = lanes.with_room(active)
        if not wanted:
            await lanes.wait_for_room(timeout)
            return
        patience = POLL_ALL_S if len(wanted) == len(active) else POLL_SOME_S
        fetched = cast("dict[TP, Fetched]", await self._getmany(wanted, min(timeout, patience)))
        by_topic: dict[str, list[Batch]] = {}
        for tp, found in fetched.items():
            if self._is_late(generation):
                return
            if batches := await self._reserved(tp, found):
                by_topic.setdefault(tp.topic, []).extend(batches)
        for batches in by_topic.values():
            if self._is_late(generation):
                return
            message = _message(batches, generation)
            yield message.tp, message

    async def _reserved(self, tp: TP, found: Fetched) -> list[Batch]:
        """Batches of one partition that its lane awaits now; none, where it expects others."""
        start, end, records, missing, unreadable = found
        lanes = self.app.lanes
        expected = lanes.expected(tp)
        if expected is None:
            return []
        if start != expected:
            await self._thread.call_thread(self._thread.seek_one, tp, expected)
            return []
        if missing:
            lanes.missing(tp)
            return []
        if unreadable is not None:
            lanes.unreadable(tp, unreadable)
            return []
        batches = _cut(tp, start, end, records, lanes.batch_max_records)
        reserved = list(takewhile(partial(lanes.reserve, tp), batches))
        lanes.saw_end(tp, self.highwater(tp) or 0)
        return reserved

    def _is_late(self, generation: int) -> bool:
        """Whether to drop what was fetched: the next claim seeks to what is stored."""
        stale = self.app.consumer_generation_id != generation
        return self.should_stop or stale or not self.flow_active

    async def perform_seek(self) -> None:
        """Claim and seek while nothing flows, whatever an overtaken rebalance has left behind.

        Faust ends each rebalance by emptying its queues and letting everything flow, and does not
        look whether another has begun meanwhile. That one would fetch for the lanes that it opens
        here, and lose what is in the queues when it ends itself.
        """
        self.stop_flow()
        self.app.flow_control.suspend()
        await super().perform_seek()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Claim what is assigned, in PostgreSQL, and seek to what is applied there.

        Faust calls this before the flow resumes after each rebalance. What cannot be claimed now
        (the database is away) is claimed in the background and not fetched before.
        """
        assigned = self.assignment()
        return await self.app.lanes.claim(assigned, self.app.consumer_generation_id)

    async def _commit(self, _offsets: Mapping[TP, int]) -> bool:
        # Faust's own commits would be lies: nothing is acked. See `commit_advisory`.
        return True

    async def commit_advisory(self, offsets: Mapping[TP, int]) -> None:
        """Tell Kafka how far PostgreSQL is, for the tools that watch lag. Raises KafkaError."""
        await self._thread.call_thread(self._thread.commit_advisory, offsets)

    async def seek_claimed(self, offsets: Mapping[TP, int]) -> None:
        """Seek partitions that were claimed outside a rebalance."""
        for tp, offset in offsets.items():
            await self._thread.call_thread(self._thread.seek_one, tp, offset)
            self._read_offset[tp] = None


class BatchTransport(driver.Transport):
    """Faust's aiokafka transport with our consumer."""

    Consumer = BatchConsumer


class BatchApp(faust.App):
    """A Faust app on the batch transport. `lanes` is set before it starts."""

    lanes: Lanes

    def _new_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_consumer, self)


def _cut(tp: TP, start: int, end: int | None, records: Sequence[Any], size: int) -> list[Batch]:
    if not records:
        if end is None or end <= start:
            return []
        return [Batch(tp.topic, tp.partition, start, end, ())]
    # Of one size: a small rest would be taken for what a steady stream brings.
    parts = -(-len(records) // size)
    part = -(-len(records) // parts)
    batches = []
    for first in range(0, len(records), part):
        chunk = records[first : first + part]
        chunk_end = chunk[-1].offset + 1
        if end is not None and first + part >= len(records):
            chunk_end = max(chunk_end, end)
        batches.append(Batch(tp.topic, tp.partition, start, chunk_end, chunk))
        start = chunk_end
    return batches


def _message(batches: Sequence[Batch], generation: int) -> ConsumerMessage:
    # Where it is from is only for Faust's own sensors: what counts travels in the batches.
    first = batches[0]
    tp = TP(first.topic, first.partition)
    timestamp_ms = first.records[-1].timestamp if first.records else 0
    return ConsumerMessage(
        tp.topic, tp.partition, first.end - 1, timestamp_ms / 1000.0, 0,
        [], None, cast("Any", batches), None, 0, 0, tp=tp, generation_id=generation,
    )  # fmt: skip
