"""One Faust agent per input topic. An agent only puts a batch into its partition's lane.

Agents never yield: an agent that does would answer to whatever topic a record's header names.
"""

from __future__ import annotations

import faust

from service.settings import Settings
from streams.batches import Batch
from streams.transport import BatchApp, PassThroughSchema


def declare(app: BatchApp, settings: Settings) -> None:
    """Declare the five agents."""

    def topic(name: str) -> faust.types.TopicT:
        return app.topic(name, acks=False, schema=PassThroughSchema(), internal=False)

    @app.agent(topic(settings.topic_attendance), name="attendance")
    async def attendance(batches: faust.StreamT[Batch]) -> None:
        async for batch in batches:
            app.lanes.admit(batch)

    @app.agent(topic(settings.topic_rsvp), name="rsvp")
    async def rsvp(batches: faust.StreamT[Batch]) -> None:
        async for batch in batches:
            app.lanes.admit(batch)

    @app.agent(topic(settings.topic_profile_update), name="profile_update")
    async def profile_update(batches: faust.StreamT[Batch]) -> None:
        async for batch in batches:
            app.lanes.admit(batch)

    @app.agent(topic(settings.topic_membership), name="membership")
    async def membership(batches: faust.StreamT[Batch]) -> None:
        async for batch in batches:
            app.lanes.admit(batch)

    @app.agent(topic(settings.topic_organization), name="organization")
    async def organization(batches: faust.StreamT[Batch]) -> None:
        async for batch in batches:
            app.lanes.admit(batch)
