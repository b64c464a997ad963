"""Sends what the demo is about: real attendance, a made-up population, and what happens now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from service.demo.input_record import InputRecord
from service.demo.picture import Picture
from service.demo.population import Population, contribution_days, southern_women
from service.demo.trickle import Trickle
from service.settings import Settings
from streams.producing import InputProducer
from streams.topics import input_topics

TRICKLE_PER_S: Final = 5.0
BREATH: Final = 100


class Feeder:
    """Sends records and counts them in the picture. Use `producer` as its context."""

    def __init__(self, settings: Settings, producer: InputProducer, picture: Picture) -> None:
        self._topics = {kind.value: name for name, kind in input_topics(settings).items()}
        self._producer = producer
        self._picture = picture

    async def real_data(self, now: datetime) -> None:
        """Eighteen women of 1936, and contributors whose last day is today."""
        await self._send_all(southern_women())
        await self._send_all(contribution_days(now))

    async def population(self, population: Population) -> None:
        """Everything about a made-up population, in the order of time, as fast as it goes."""
        await self._send_all(population.records())

    async def trickle(self, trickle: Trickle, count: int | None, per_s: float) -> None:
        """What happens from now on, at a steady rate; for ever without a `count`."""
        sent = 0
        while count is None or sent < count:
            await self._send(trickle.next(datetime.now(UTC)))
            sent += 1
            await asyncio.sleep(1 / per_s)
        await self._producer.flush()

    async def _send_all(self, records: Iterable[InputRecord]) -> None:
        for number, record in enumerate(records):
            await self._send(record)
            if number % BREATH == 0:
                await asyncio.sleep(0)
        await self._producer.flush()

    async def _send(self, record: InputRecord) -> None:
        topic = self._topics[record.kind]
        await self._producer.send(topic, record.key, record.value, record.headers)
        self._picture.sent[record.kind] += 1
