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
    parts = [(len(letter.key or b""), "key", 0), (len(letter.value or b""), "value", 0)]
    parts += [(_size(header), "headers", at) for at, header in enumerate(letter.headers)]
    too_many = sum(size for size, _, _ in parts) - most_bytes
    omitted: dict[str, int] = {}
    dropped: set[int] = set()
    for size, name, at in sorted(parts, reverse=True):
        if too_many <= 0:
            break
        too_many -= size
        omitted[name] = omitted.get(name, 0) + size
        if name == "headers":
            dropped.add(at)
    headers = [header for at, header in enumerate(letter.headers) if at not in dropped]
    return LetterMessage(
        None if "key" in omitted else letter.key,
        None if "value" in omitted else letter.value,
        [*headers, *_our_headers(letter), *_told(omitted)],
    )


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
