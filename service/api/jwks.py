"""Signing keys from a JWKS address: fetched without blocking, cached, refetched with restraint."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

import httpx2
import structlog

from service.api.keys import KeySource, VerificationKey, keys_from_jwks
from service.errors import Retryable, SettingsError

FRESH_S: Final = 600.0
USABLE_S: Final = 3600.0
MIN_INTERVAL_S: Final = 60.0
MIN_INTERVAL_WITHOUT_KEYS_S: Final = 5.0
FETCH_TIMEOUT_S: Final = 5.0
MAX_BYTES: Final = 256 * 1024
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

Fetch = Callable[[str], Awaitable[bytes]]

log = structlog.get_logger(__name__)


async def fetch_bytes(url: str) -> bytes:
    """GET without redirects, at most MAX_BYTES. Raises httpx2.HTTPError or ValueError."""
    async with (
        asyncio.timeout(FETCH_TIMEOUT_S),
        httpx2.AsyncClient(timeout=FETCH_TIMEOUT_S, follow_redirects=False) as client,
        client.stream("GET", url, headers={"Accept": "application/json"}) as response,
    ):
        response.raise_for_status()
        if response.status_code != 200:  # noqa: PLR2004 - a redirect is no key set
            raise ValueError(f"status {response.status_code}")
        body = b""
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_BYTES:
                raise ValueError("the key set is too large")
        return body


class JwksKeys(KeySource):
    """Keys of one JWKS address.

    A key id that is not known causes a fetch, but no more than one a minute whoever asks, so that
    forged ids cannot make us hammer the address. Keys older than ten minutes are refreshed in
    passing, and are still used for an hour while the address is away.
    """

    def __init__(
        self,
        url: str,
        *,
        fetch: Fetch = fetch_bytes,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
            raise SettingsError("ENGAGEMENT_JWT_JWKS_URL: must be https, or http on loopback")
        self._url = url
        self._fetch = fetch
        self._monotonic = monotonic
        self._keys: dict[str | None, VerificationKey] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._running: asyncio.Task[None] | None = None

    async def key_for(self, kid: str | None) -> VerificationKey | None:
        """See `KeySource.key_for`.

        Key ids are optional (RFC 7515, RFC 7517): a token without one is of the only key of the
        set, and so is any token if that key has none. Among several the id decides.
        """
        age_s = self._monotonic() - self._fetched_at
        if age_s > USABLE_S or self._found(kid) is None:
            await self._refresh()
        elif age_s > FRESH_S:
            self._start()
        if self._monotonic() - self._fetched_at > USABLE_S:
            raise Retryable("the signing keys cannot be fetched")
        return self._found(kid)

    def _found(self, kid: str | None) -> VerificationKey | None:
        if len(self._keys) == 1 and (kid is None or None in self._keys):
            return next(iter(self._keys.values()))
        return None if kid is None else self._keys.get(kid)

    async def _refresh(self) -> None:
        self._start()
        if self._running is not None:
            # Shielded: one caller who goes away must not end the fetch of the others.
            await asyncio.shield(self._running)

    def _start(self) -> None:
        if self._running is not None and not self._running.done():
            return
        self._running = None
        now = self._monotonic()
        usable = now - self._fetched_at <= USABLE_S
        interval_s = MIN_INTERVAL_S if usable else MIN_INTERVAL_WITHOUT_KEYS_S
        if now - self._tried_at >= interval_s:
            self._tried_at = now
            self._running = asyncio.create_task(self._load())

    async def _load(self) -> None:
        try:
            self._keys = keys_from_jwks(json.loads(await self._fetch(self._url)))
        except (httpx2.HTTPError, OSError, ValueError, TimeoutError) as error:
            log.warning("signing_keys_not_fetched", action="fetch", error=repr(error))
            return
        self._fetched_at = self._monotonic()
        if not self._keys:
            log.warning("no_usable_signing_key", action="fetch", advice="give an RSA key of 2048 "
                        "bits or more, a P-256 or an Ed25519 key, for signing")  # fmt: skip
            return
        log.info("signing_keys_fetched", action="fetch", keys=len(self._keys))
