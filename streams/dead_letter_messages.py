"""What a dead letter is on its topic: the record as it came, and headers that say what is wrong.

What its topic does not take stays in the table `dead_letter`, and a header says so: a letter that
could not be sent would keep back all that follow.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, NamedTuple

from db.dead_letters import DeadLetterRow
from service.instants import wire_time
from streams.partition_batches import Header

# Two lengths of up to five bytes each.
_HEADER_OVERHEAD: Final = 10


class LetterMessage(NamedTuple):
    """What is sent of a dead letter."""

    key: bytes | None
    value: bytes | None
    headers: list[Header]


def letter_message(letter: DeadLetterRow, most_bytes: int) -> LetterMessage:
    """Key, value and headers as they came, less the largest of them while they are too many bytes.

    What is left out is told by the headers `dlq-key-omitted`, `dlq-value-omitted` and
    `dlq-headers-omitted`, with the bytes that it had. Our own headers come on top of `most_bytes`.
    """
    key, value, headers = letter.key, letter.value, list(letter.headers)
    sizes = [_size(header) for header in headers]
    too_many = len(key or b"") + len(value or b"") + sum(sizes) - most_bytes
    omitted: dict[str, int] = {}
    if too_many > 0:
        parts = [(len(key or b""), "key", 0), (len(value or b""), "value", 0)]
        parts += [(size, "headers", at) for at, size in enumerate(sizes)]
        dropped: set[int] = set()
        for size, name, at in sorted(parts, reverse=True):
            if too_many <= 0:
                break
            too_many -= size
            omitted[name] = omitted.get(name, 0) + size
            if name == "key":
                key = None
            elif name == "value":
                value = None
            else:
                dropped.add(at)
        headers = [header for at, header in enumerate(headers) if at not in dropped]
    return LetterMessage(key, value, [*headers, *_our_headers(letter), *_told(omitted)])


def _size(header: Header) -> int:
    name, value = header
    return len(name.encode()) + len(value or b"") + _HEADER_OVERHEAD


def _told(omitted: dict[str, int]) -> list[Header]:
    return [(f"dlq-{name}-omitted", str(size).encode()) for name, size in omitted.items()]


def _our_headers(letter: DeadLetterRow) -> list[Header]:
    failed_at = letter.failed_at or datetime.now(UTC)
    return [
        ("__streams.errors.topic", letter.topic.encode()),
        ("__streams.errors.partition", str(letter.partition).encode()),
        ("__streams.errors.offset", str(letter.offset).encode()),
        ("__streams.errors.exception", letter.code.encode()),
        ("__streams.errors.message", letter.message.encode()),
        ("dlq-failed-at", wire_time(failed_at).encode()),
    ]
