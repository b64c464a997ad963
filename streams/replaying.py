"""Sends dead letters to the topic that they came from again, once something was mended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from db import dead_letter_log, offsets
from db.dead_letter_log import Choice, StoredDeadLetter
from db.pool import Connection
from service.settings import Settings
from streams.producing import Headers, InputProducer
from streams.topics import input_topics

PAGE: Final = 500
REPLAY_OF: Final = "dlq-replay-of"


async def replay(
    settings: Settings,
    connection: Connection,
    choice: Choice,
) -> AsyncIterator[StoredDeadLetter]:
    """Send the chosen dead letters to their topics; each of them once the brokers have it.

    Key, value and headers are those of the record, with the header `dlq-replay-of` in addition.
    Each page is marked once the brokers have it: after a crash in between it is sent twice, which
    changes nothing, since records have ids. What fails again meanwhile is a new dead letter, and
    not sent once more. Raises Retryable, NotReady.
    """
    last: StoredDeadLetter | None = None
    began_at = await offsets.read_now(connection)
    async with InputProducer(settings, list(input_topics(settings))) as producer:
        while page := await dead_letter_log.in_order(
            connection, choice, PAGE, last, until=began_at
        ):
            last = page[-1]
            letters = [one for one in page if one.erased_at is None]
            for one in letters:
                letter = one.letter
                await producer.send(letter.topic, letter.key, letter.value, headers_of(one))
            await producer.flush()
            await dead_letter_log.mark_replayed(connection, letters)
            for one in letters:
                yield one


def address(stored: StoredDeadLetter) -> str:
    """Where the record lay: topic/partition/offset."""
    topic, partition, offset = stored.letter[:3]
    return f"{topic}/{partition}/{offset}"


def headers_of(stored: StoredDeadLetter) -> Headers:
    """The record's own headers, and which dead letter it is; of an earlier replay, the last."""
    kept = [(name, value) for name, value in stored.letter.headers if name != REPLAY_OF]
    return [*kept, (REPLAY_OF, address(stored).encode())]
