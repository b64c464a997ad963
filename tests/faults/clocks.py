"""A wall clock that is wrong, in the process of a worker. Imports nothing of the product."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, tzinfo
from typing import Any

Jumps = Sequence[tuple[float, float]]
"""(seconds after the start, seconds that the clock is off from then on), in order of time."""


def make_wrong(jumps: Jumps) -> None:
    """Let this process's wall clock be wrong; call it before anything else is imported.

    Monotonic clocks go on as they do when somebody sets the time of a machine.
    """
    true_time, began = time.time, time.monotonic()

    def wrong_time() -> float:
        passed_s = time.monotonic() - began
        return true_time() + next((off for at, off in reversed(jumps) if at <= passed_s), 0.0)

    def now(cls: type[datetime], tz: tzinfo | None = None) -> datetime:
        return cls.fromtimestamp(wrong_time(), tz)

    def utcnow(cls: type[datetime]) -> datetime:
        return cls.fromtimestamp(wrong_time(), UTC).replace(tzinfo=None)

    def today(cls: type[date]) -> date:
        return cls.fromtimestamp(wrong_time())

    time.time = wrong_time
    time.time_ns = lambda: int(wrong_time() * 1e9)
    _put(datetime, now=classmethod(now), utcnow=classmethod(utcnow))
    _put(date, today=classmethod(today))
    _stamp_records(wrong_time)


def _put(owner: type, **methods: Any) -> None:
    """Give a class of C other methods, wherever it was imported to."""
    gc.get_referents(owner.__dict__)[0].update(methods)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(owner))


def _stamp_records(clock: Callable[[], float]) -> None:
    """aiokafka reads the clock for its records in C, where the above does not reach."""
    from aiokafka.producer.message_accumulator import BatchBuilder

    original = BatchBuilder.append

    def append(self: Any, *, timestamp: int | None, **record: Any) -> Any:
        at_ms = int(clock() * 1000) if timestamp is None else timestamp
        return original(self, timestamp=at_ms, **record)

    BatchBuilder.append = append
