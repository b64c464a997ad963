"""From the outbox to the engagement topics: in order per key, at least once, fenced by Kafka.

One worker relays at a time (a lease in PostgreSQL). One that was paused and wakes up late must not
send old states after new ones, so a partition that the next one has sent to takes nothing of it.
Where the next one has sent nothing yet, it does no harm: what the paused one still holds is in the
outbox, and is sent again before anything newer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple
from uuid import UUID

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from db import dead_letters, leases, outbox
from db.dead_letters import DeadLetterRow
from db.outbox import NOTHING_SENT, OutboxRow
from db.pool import Connection, Pool, acquired
from service.errors import Retryable
from service.instants import wire_time
from service.metrics import METRICS
from service.records import (
    CHANGE_TYPE,
    LEVEL_TYPE,
    SOURCE,
    change_id,
    level_message_id,
)
from service.settings import Settings
from streams.backoff import Backoff
from streams.connection import lacks_transactions
from streams.dead_letter_messages import letter_message
from streams.fenced_producer import cut_off, start_fenced
from streams.partition_batches import Header, Key, PartitionBatches

log = structlog.get_logger(__name__)

LEASE: Final = "relay"
LEASE_TTL: Final = timedelta(seconds=12)
LEASE_RENEWAL_S: Final = 4.0
PAGE: Final = 2_000
# A steady stream is sent in pages: each costs a batch in every partition.
GATHER_S: Final = 0.005
FEW: Final = 200
# Meanwhile neither the lease nor the clock is asked for again, nor are dead letters looked for.
LOOK_S: Final = 0.5
IDLE_POLL_S: Final = 1.0
STEP_TIMEOUT_S: Final = 45.0
# Brokers forget a fence id that nobody has started with for a week, and then the next one would
# fence nobody (`transactional.id.expiration.ms`).
MAX_PRODUCER_AGE_S: Final = 86_400.0
# Dead letters may be as large as the brokers let records be, which is found out by halves.
LETTERS: Final = 50
MAX_LETTER_BYTES: Final = 4 * 1024 * 1024
MIN_LETTER_BYTES: Final = 64 * 1024


class Page(NamedTuple):
    """What is sent at once. `at_ms`: when it was read, by the clock that dates the messages."""

    rows: list[OutboxRow]
    letters: list[DeadLetterRow]
    at_ms: int


class Leased(NamedTuple):
    """When the lease was taken, by the monotonic clock, and the database's clock then."""

    at_s: float
    clock_ms: int

    def clock_ms_now(self) -> int:
        """The database's clock by now."""
        return self.clock_ms + int((time.monotonic() - self.at_s) * 1000)


class Relay:
    """Sends what is in the outbox, and dead letters, for as long as it holds the lease."""

    def __init__(self, pool: Pool, settings: Settings, owner: UUID) -> None:
        self._pool = pool
        self._settings = settings
        self._owner = owner
        self._wake = asyncio.Event()
        self._producer: AIOKafkaProducer | None = None
        self._producer_started_at = 0.0
        self._fence_id: str | None = f"{settings.consumer_group}-relay"
        self._letter_bytes = MAX_LETTER_BYTES
        # What Kafka has acknowledged and the outbox still holds.
        self._sent = NOTHING_SENT
        self._leased: Leased | None = None
        self._looked_for_letters_at = 0.0
        self.last_step_at: datetime | None = None

    def wake(self) -> None:
        """There is something to send."""
        self._wake.set()

    async def run(self, should_stop: Callable[[], bool]) -> None:
        """Relay until told to stop. Outages of either side only delay."""
        backoff = Backoff(first_s=0.2, most_s=5.0)
        try:
            while not should_stop():
                try:
                    sent = await asyncio.wait_for(self.step(), STEP_TIMEOUT_S)
                    backoff.reset()
                except (Retryable, KafkaError, TimeoutError) as error:
                    METRICS.relay_errors.inc()
                    if isinstance(error, MessageSizeTooLargeError):
                        self._letter_bytes = max(self._letter_bytes // 2, MIN_LETTER_BYTES)
                    log.warning("relay_failed", action="retry",
                                error=f"{type(error).__name__}: {error}")  # fmt: skip
                    self._leased = None
                    await self._drop_producer()
                    await backoff.wait()
                    continue
                if not sent:
                    await self._sleep()
                elif sent < FEW:
                    await asyncio.sleep(GATHER_S)
        finally:
            await self.stop()

    async def step(self) -> int:
        """Send one page; how many messages went out. Raises Retryable or KafkaError."""
        self._wake.clear()
        if time.monotonic() > self._producer_started_at + MAX_PRODUCER_AGE_S:
            await self._drop_producer()
        page = await self._read_page()
        if page is not None and self._producer is None:
            # Only a producer that has started fences those before it. What was read earlier may be
            # out of date by now: somebody else may have sent it, and newer states after it.
            await self._start_producer()
            page = await self._read_page()
        if page is None:
            return 0
        renewal = asyncio.create_task(self._renew_lease(), name="relay lease")
        try:
            sent = await self._send(page)
        finally:
            renewal.cancel()
        self._sent = outbox.sent_of(page.rows)
        if page.letters:
            async with acquired(self._pool) as connection:
                await dead_letters.mark_published(connection, page.letters)
        return sent

    async def _read_page(self) -> Page | None:
        """What is to be sent next; None, and no producer any more, while another relays."""
        async with acquired(self._pool) as connection:
            leased = await self._take_lease(connection)
            if leased is None:
                await self._drop_producer()
                return None
            rows = await outbox.next_page(connection, self._sent, PAGE)
            self._sent = NOTHING_SENT
            letters = []
            now_s = time.monotonic()
            if not rows or now_s > self._looked_for_letters_at + LOOK_S:
                letters = await dead_letters.unpublished(connection, LETTERS)
                self._looked_for_letters_at = now_s
            self.last_step_at = datetime.now(UTC)
            return Page(rows, letters, leased.clock_ms_now()) if rows or letters else None

    async def _take_lease(self, connection: Connection) -> Leased | None:
        """The lease, taken or extended where it was not just now; None while another holds it."""
        now_s = time.monotonic()
        if self._leased is None or now_s > self._leased.at_s + LOOK_S:
            taken = await leases.take(connection, LEASE, self._owner, LEASE_TTL)
            clock_ms = None if taken is None else await outbox.clock_ms(connection)
            self._leased = None if clock_ms is None else Leased(now_s, clock_ms)
        return self._leased

    async def _renew_lease(self) -> None:
        """A page may take longer than the lease lasts; whoever holds it goes on holding it."""
        while True:
            await asyncio.sleep(LEASE_RENEWAL_S)
            with suppress(Retryable):
                async with acquired(self._pool) as connection:
                    await leases.take(connection, LEASE, self._owner, LEASE_TTL)

    async def stop(self) -> None:
        """Let go of the producer and the lease, so that another worker takes over at once."""
        self._leased = None
        await self._drop_producer()
        try:
            async with asyncio.timeout(3), acquired(self._pool) as connection:
                await outbox.delete_sent(connection, self._sent)
                await leases.give_up(connection, LEASE, self._owner)
        except (Retryable, TimeoutError):
            log.info("lease_left", action="stop", advice="it expires by itself")

    async def _send(self, page: Page) -> int:
        producer = self._producer
        assert producer is not None
        settings = self._settings
        pending = await self._send_rows(producer, page)
        pending += [await self._send_letter(producer, one, page.at_ms) for one in page.letters]
        # Raises what the broker refused.
        await asyncio.gather(*pending)
        METRICS.published.labels(settings.topic_level).inc(len(page.rows))
        METRICS.published.labels(settings.topic_change).inc(
            sum(r.change_body is not None for r in page.rows)
        )
        METRICS.published.labels(settings.topic_dead_letter).inc(len(page.letters))
        return len(page.rows) + len(page.letters)

    async def _send_rows(
        self, producer: AIOKafkaProducer, page: Page
    ) -> list[asyncio.Future[object]]:
        """Send what the rows say, in their order for each key."""
        batches = PartitionBatches(producer, page.at_ms)
        for row in page.rows:
            key = Key.of(row.message_key)
            for topic, body, headers in self._messages(row):
                await batches.add(topic, key, body, headers)
        return await batches.send()

    def _messages(self, row: OutboxRow) -> Iterator[tuple[str, bytes | None, list[Header]]]:
        """(topic, body, headers) of what a published state says."""
        at = _time(row.created_at)
        if row.change_body is not None:
            identity = change_id(row.message_key, row.revision)
            yield self._settings.topic_change, row.change_body, _headers(CHANGE_TYPE, identity, at)
        identity = level_message_id(row.message_key, row.revision)
        yield self._settings.topic_level, row.level_body, _headers(LEVEL_TYPE, identity, at)

    async def _send_letter(
        self, producer: AIOKafkaProducer, letter: DeadLetterRow, at_ms: int
    ) -> asyncio.Future[object]:
        topic = self._settings.topic_dead_letter
        key, value, headers = letter_message(letter, self._letter_bytes)
        if key is not None or value is not None:
            sent: asyncio.Future[object] = await producer.send(
                topic, value, key, timestamp_ms=at_ms, headers=headers
            )
            return sent
        # The client refuses to send a single record of neither, but not a batch of one.
        batch = producer.create_batch()
        batch.append(timestamp=at_ms, key=None, value=None, headers=headers)
        partition = min(await producer.partitions_for(topic))
        sent = await producer.send_batch(batch, topic, partition=partition)
        return sent  # noqa: RET504 - the client has no types

    async def _start_producer(self) -> None:
        try:
            self._producer = await start_fenced(self._settings, self._fence_id)
        except TimeoutError:
            await self._give_up_fence()
            raise
        self._producer_started_at = time.monotonic()
        log.info("relay_started", action="relay", fenced=self._fence_id is not None)

    async def _give_up_fence(self) -> None:
        """Go on without the fence where the cluster cannot coordinate transactions at all."""
        if self._fence_id is None or not await lacks_transactions(self._settings, self._fence_id):
            return
        log.error(
            "no_transactions", action="degrade",
            advice="the brokers cannot host transactions (transaction.state.log.replication.factor "
            "above the number of brokers?); order per key now rests on the relay's lease alone",
        )  # fmt: skip
        self._fence_id = None

    async def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await cut_off(producer)

    async def _sleep(self) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), IDLE_POLL_S)
        except TimeoutError:
            return


@lru_cache(maxsize=16)
def _time(at: datetime) -> bytes:
    """The header's value. Rows of one transaction are all of one instant."""
    return wire_time(at).encode()


def _headers(kind: str, identity: str, at: bytes) -> list[Header]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", identity.encode()),
        ("ce_source", SOURCE.encode()),
        ("ce_type", kind.encode()),
        ("ce_time", at),
        ("content-type", b"application/json"),
    ]
