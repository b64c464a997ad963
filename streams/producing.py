"""Sends input records: for import, replay and the demo. Neither loses nor reorders."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from service.errors import NotReady
from service.settings import Settings
from streams.connection import away, producer_arguments
from streams.topics import missing_topics

LINGER_MS: Final = 5
# The sender shares our loop: let it run now and then, also when nothing makes us wait.
BREATH: Final = 200

Headers = Sequence[tuple[str, bytes | None]]


class InputProducer:
    """Sends records to topics that exist; use it as an async context manager.

    Leaving the block waits for every acknowledgement. Raises NotReady for missing topics,
    Retryable when the brokers do not take the records: what was sent may be sent again.
    """

    def __init__(self, settings: Settings, topics: Sequence[str]) -> None:
        self.acknowledged: Counter[str] = Counter()
        self._settings = settings
        self._topics = topics
        self._producer: AIOKafkaProducer | None = None
        self._failure: BaseException | None = None
        self._sent = 0

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
    ) -> None:
        """Queue one record; waits while too many are on their way."""
        assert self._producer is not None
        self._raise_failure()
        try:
            future = await self._producer.send(topic, value, key, headers=list(headers))
        except KafkaError as error:
            raise away(error) from error
        future.add_done_callback(lambda done: self._acknowledge(topic, done))
        self._sent += 1
        if self._sent % BREATH == 0:
            await asyncio.sleep(0)

    async def flush(self) -> None:
        """Return when everything sent so far is acknowledged."""
        assert self._producer is not None
        try:
            await self._producer.flush()
        except KafkaError as error:
            raise away(error) from error
        self._raise_failure()

    async def __aenter__(self) -> Self:
        """Connect."""
        missing = set(await missing_topics(self._settings)).intersection(self._topics)
        if missing:
            raise NotReady(
                f"missing topics {', '.join(sorted(missing))}: run `engagement topics apply`"
            )
        producer = AIOKafkaProducer(**producer_arguments(self._settings), linger_ms=LINGER_MS)
        try:
            await producer.start()
        except KafkaError as error:
            await producer.stop()
            raise away(error) from error
        self._producer = producer
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the acknowledgements, disconnect."""
        assert self._producer is not None
        try:
            if error is None:
                await self.flush()
        finally:
            await self._producer.stop()

    def _acknowledge(self, topic: str, done: asyncio.Future[Any]) -> None:
        if done.cancelled():
            return
        if (failure := done.exception()) is None:
            self.acknowledged[topic] += 1
        elif self._failure is None:
            self._failure = failure

    def _raise_failure(self) -> None:
        if isinstance(self._failure, KafkaError):
            raise away(self._failure) from self._failure
        if self._failure is not None:
            raise self._failure
