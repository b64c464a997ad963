"""The unit of work between transport and database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Batch(NamedTuple):
    """Records of one partition: all that the topic has with start <= offset < end."""

    topic: str
    partition: int
    start: int
    end: int
    records: Sequence[Any]
