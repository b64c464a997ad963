"""How often a consumer asks for records."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.types import TP

from streams.transport import IDLE, POLL_ALL_S, POLL_SOME_S, STEADY, ConsumerThread, FetchPace

PARTITION = TP("attendance", 0)


class Scene:
    """A thread whose fetches bring what the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: dict[TP, list[str]] = {}
        self.consumer: Any = SimpleNamespace(
            _fetcher=SimpleNamespace(
                _fetch_min_bytes=STEADY.min_bytes, _fetch_max_wait_ms=STEADY.max_wait_ms
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
