"""A producer that ends those before it: in each partition, with the first batch it sends there.

All that share a fence id get one producer id from the brokers, each with a higher epoch than the
one before. A partition that has seen an epoch takes nothing of a lower one, and forgets what it has
seen a day after the last batch (`producer.id.expiration.ms`). Kafka's transactions stand on this,
but add markers in every partition and four requests a page, so that it is seen as a whole: nobody
needs that here.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from service.settings import Settings
from streams.connection import producer_arguments

log = structlog.get_logger(__name__)

START_TIMEOUT_S: Final = 15.0
CLOSE_TIMEOUT_S: Final = 3.0
LAST_ANSWERS_S: Final = 0.1


async def start_fenced(settings: Settings, fence_id: str | None) -> AIOKafkaProducer:
    """A started producer; None: one that fences nobody. Raises KafkaError or TimeoutError.

    A producer that was fenced raises ProducerFenced for what it sends.
    """
    producer = AIOKafkaProducer(
        **producer_arguments(settings), linger_ms=0, transactional_id=fence_id
    )
    try:
        await asyncio.wait_for(producer.start(), START_TIMEOUT_S)
    except BaseException:
        await cut_off(producer)
        raise
    # It has its epoch. aiokafka takes the id for the wish to send in transactions.
    producer._txn_manager.transactional_id = None  # noqa: SLF001
    return producer


async def cut_off(producer: AIOKafkaProducer) -> None:
    """Close a producer at once; what it has not sent by now is not sent any more.

    Never fails: what does not end within CLOSE_TIMEOUT_S is left behind.
    """
    sending = producer._sender.sender_task  # noqa: SLF001
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            # Cancelled once it still waits for its requests, of which one may have no answer; and
            # its own `close` would hand a second cancellation on to us.
            while sending is not None and not sending.done():
                sending.cancel()
                await asyncio.wait([sending], timeout=LAST_ANSWERS_S)
            await producer.stop()
    except (KafkaError, TimeoutError) as error:
        log.warning("producer_lost", action="close", error=f"{type(error).__name__}: {error}")
