"""One Faust agent per input topic. An agent only puts batches into their partitions' lanes.

Agents never yield: one that does would answer to whatever topic a record's header names.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence

from faust.types import StreamT

from service.settings import Settings
from streams.batches import Batch
from streams.topics import input_topics
from streams.transport import BatchApp, PassThroughSchema


def declare(app: BatchApp, settings: Settings) -> None:
    """Declare the agents, named after what is in their topics."""
    for name, kind in input_topics(settings).items():
        topic = app.topic(name, acks=False, schema=PassThroughSchema())
        app.agent(topic, name=kind.value)(_admitting(app))


def _admitting(
    app: BatchApp,
) -> Callable[[StreamT[Sequence[Batch]]], Coroutine[object, object, None]]:
    async def admit(fetched: StreamT[Sequence[Batch]]) -> None:
        async for batches in fetched:
            for batch in batches:
                app.lanes.admit(batch)

    return admit
