"""What requests share: the way to the data, who verifies tokens, settings that matter."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import Request

from service.api.ports import Store
from service.api.summaries import Summaries
from service.api.tokens import TokenVerifier

LONG_READS: Final = 2


@dataclass(frozen=True)
class Services:
    """One per process, in `app.state.services`.

    `development`: tokens are signed with the development secret, and sign-in links work.
    """

    store: Store
    verifier: TokenVerifier
    implicit_membership: bool = True
    development: bool = False
    summaries: Summaries = field(init=False)
    # Reads that take seconds: so many at once leave the others connections enough.
    long_reads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LONG_READS))

    def __post_init__(self) -> None:
        object.__setattr__(self, "summaries", Summaries(self.store))


def services_of(request: Request) -> Services:
    """The services of the app that the request came to."""
    services: Services = request.app.state.services
    return services
