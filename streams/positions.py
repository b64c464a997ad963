"""Compares where partitions are applied with what the broker still has. Never silent.

Records lost to retention cannot be brought back: the partition goes on at the first one left, and
an incident says what is missing. A topic that ends before our offset, or whose last applied record
is another one now, was truncated or made anew: the partition stops until somebody has looked. When
resumed it begins at the first record there is; what was applied before does no harm a second time.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from faust.types import TP

from db import offsets
from db.offsets import Claim
from db.pool import Pool, transaction
from service.errors import Fenced, Retryable
from service.metrics import METRICS
from service.settings import Settings
from streams.connection import client_arguments
from streams.reading import guard

log = structlog.get_logger(__name__)

READ_TIMEOUT_S: Final = 10.0
FETCH_BYTES: Final = 128 * 1024

Ranges = Mapping[TP, tuple[int, int]]
CheckClaims = Callable[[Iterable[Claim], Ranges], Awaitable[dict[TP, Claim]]]


def fingerprint(record: Any) -> int:
    """CRC-32 over key and value: tells whether a topic still has the record we applied."""
    return zlib.crc32(record.value or b"", zlib.crc32(record.key or b""))


class Positions:
    """Checks fresh claims against the broker."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings

    async def check(self, claims: Iterable[Claim], ranges: Ranges) -> dict[TP, Claim]:
        """The claims, moved or stopped where needed; `ranges` is first and end offset of each.

        Without those that another worker has claimed by now. Raises Retryable, also when the broker
        does not show the records asked for.
        """
        held = {TP(claim.topic, claim.partition): claim for claim in claims}
        last = {
            TopicPartition(*tp): claim.next_offset - 1
            for tp, claim in held.items()
            if claim.fingerprint is not None
            and claim.stopped_at is None
            and ranges[tp][0] < claim.next_offset <= ranges[tp][1]
        }
        found = await self._fingerprints(last) if last else {}
        checked = {}
        for tp, claim in held.items():
            with suppress(Fenced):
                checked[tp] = await self._checked(
                    claim, ranges[tp], found.get(tp, claim.fingerprint)
                )
        return checked

    async def _checked(self, claim: Claim, available: tuple[int, int], found: int | None) -> Claim:
        first, end = available
        if claim.stopped_at is not None:
            return claim
        if claim.next_offset > end:
            return await self._stop(claim, "topic_shorter", first, end)
        if claim.next_offset < first:
            return await self._skip(claim, first, end)
        if found != claim.fingerprint:
            return await self._stop(claim, "topic_changed", first, end)
        return claim

    async def _stop(self, claim: Claim, kind: str, first: int, end: int) -> Claim:
        METRICS.incidents.labels(kind).inc()
        log.error(kind, action="stop", topic=claim.topic, partition=claim.partition,
                  next_offset=claim.next_offset, first=first, end=end,
                  advice="the topic was truncated or made anew; `engagement dlq resume` reads it "
                  "from its first record")  # fmt: skip
        async with transaction(self._pool) as connection:
            await offsets.record_incident(
                connection, kind, claim.topic, claim.partition, _details(claim, first, end)
            )
            stopped_at = await offsets.stop(connection, claim, restart_at=first)
        return claim._replace(stopped_at=stopped_at, next_offset=first)

    async def _skip(self, claim: Claim, first: int, end: int) -> Claim:
        METRICS.incidents.labels("records_lost").inc()
        log.error("records_lost", action="skip", topic=claim.topic, partition=claim.partition,
                  next_offset=claim.next_offset, first=first,
                  lost=first - claim.next_offset)  # fmt: skip
        async with transaction(self._pool) as connection:
            await offsets.record_incident(
                connection, "records_lost", claim.topic, claim.partition,
                _details(claim, first, end),
            )  # fmt: skip
            await offsets.move(connection, claim, first)
        return claim._replace(next_offset=first)

    async def _fingerprints(self, wanted: Mapping[TopicPartition, int]) -> dict[TP, int]:
        """Fingerprints of the records at these offsets, where there are any that can be read.

        Raises Retryable.
        """
        consumer = AIOKafkaConsumer(
            **client_arguments(self._settings),
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_partition_fetch_bytes=FETCH_BYTES,
            request_timeout_ms=int(READ_TIMEOUT_S * 1000),
        )
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                await consumer.start()
                return await _read_one_each(consumer, wanted)
        except (KafkaError, OSError, TimeoutError) as error:
            raise Retryable(f"broker: {type(error).__name__}: {error}") from error
        finally:
            await consumer.stop()


async def _read_one_each(
    consumer: AIOKafkaConsumer, wanted: Mapping[TopicPartition, int]
) -> dict[TP, int]:
    unreadable = guard(consumer)
    consumer.assign(list(wanted))
    for tp, offset in wanted.items():
        consumer.seek(tp, offset)
    waiting, found = set(wanted), {}
    while waiting:
        for tp, records in (await consumer.getmany(*waiting, timeout_ms=200)).items():
            # At the offset itself nothing may be left (compaction): then nobody can tell.
            if records[0].offset == wanted[tp]:
                found[TP(tp.topic, tp.partition)] = fingerprint(records[0])
        for tp in list(waiting):
            if tp in unreadable or await consumer.position(tp) > wanted[tp]:
                waiting.discard(tp)
                consumer.pause(tp)
    return found


def _details(claim: Claim, first: int, end: int) -> str:
    return json.dumps({"next_offset": claim.next_offset, "first": first, "end": end})
