"""Signing keys that the running API fetches itself, from a real address that may fail."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from service.api.jwks import FETCH_TIMEOUT_S, MAX_BYTES
from tests.api_community import ADMIN, ORG, settle
from tests.api_process import ApiProcess, api_process

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def key_set(key: rsa.RSAPrivateKey = KEY, kid: str = "one") -> bytes:
    jwk = json.loads(jwt.get_algorithm_by_name("RS256").to_jwk(key.public_key()))
    return json.dumps({"keys": [jwk | {"kid": kid, "alg": "RS256"}]}).encode()


class KeySite:
    """An HTTP server with a key set; it counts, and can be slow, elsewhere or far too long."""

    def __init__(self) -> None:
        self.calls = 0
        self.status = b"200 OK"
        self.headers = b""
        self.body = key_set()
        self.open = asyncio.Event()
        self.open.set()
        self.url = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[KeySite]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
        async with server:
            yield self
            self.open.set()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.calls += 1
        await self.open.wait()
        length = str(len(self.body)).encode()
        writer.write(b"HTTP/1.1 " + self.status + b"\r\nContent-Length: " + length + b"\r\n")
        writer.write(self.headers + b"Connection: close\r\n\r\n" + self.body)
        writer.close()


@pytest.fixture
async def site() -> AsyncIterator[KeySite]:
    async with KeySite().serving() as running:
        yield running


@pytest.fixture
async def api(database: str, site: KeySite) -> AsyncIterator[ApiProcess]:
    community = await settle(database)
    try:
        async with api_process(
            database, ENGAGEMENT_JWT_DEV_SECRET="", ENGAGEMENT_JWT_JWKS_URL=site.url
        ) as running:
            yield running
    finally:
        await community.connection.close()


def token(api: ApiProcess, key: Any = KEY, kid: str = "one", algorithm: str = "RS256") -> str:
    now = datetime.now(UTC)
    claims = {
        "sub": ADMIN, "iss": api.settings.jwt_issuer, "aud": api.settings.jwt_audience,
        "iat": now, "exp": now + timedelta(minutes=5),
    }  # fmt: skip
    return jwt.encode(claims, key, algorithm, headers={"kid": kid})


def hmac_with_public_key(api: ApiProcess) -> str:
    """By hand, since no library would sign so."""
    pem = KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _, body, _ = token(api).split(".")
    head = urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "one"}).encode()).decode()
    signed = f"{head.rstrip('=')}.{body}"
    mac = urlsafe_b64encode(hmac.new(pem, signed.encode(), hashlib.sha256).digest()).decode()
    return f"{signed}.{mac.rstrip('=')}"


async def members(api: ApiProcess, bearer: str) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=api.address, timeout=30) as client:
        return await client.get(
            f"/v1/orgs/{ORG}/members", headers={"Authorization": f"Bearer {bearer}"}
        )


async def test_tokens_by_the_keys_of_an_address(api: ApiProcess, site: KeySite) -> None:
    for _ in range(3):
        assert (await members(api, token(api))).status_code == 200
    assert site.calls == 1
    cheats = [
        token(api, OTHER_KEY),
        token(api, "a-development-secret-of-the-tests-only", algorithm="HS256"),
        token(api, None, algorithm="none"),
        hmac_with_public_key(api),
    ]
    for cheat in cheats:
        refused = await members(api, cheat)
        assert refused.status_code == 401
        assert refused.json()["type"] == "urn:engagement:problem:unauthorized"
    # Ids that nobody knows do not make the service hammer the address.
    refusals = await asyncio.gather(
        *(members(api, token(api, OTHER_KEY, f"forged-{number}")) for number in range(30))
    )
    assert {response.status_code for response in refusals} == {401}
    assert site.calls == 1


async def test_nobody_waits_for_an_address_that_hangs_but_who_needs_it(
    api: ApiProcess, site: KeySite
) -> None:
    site.open.clear()
    waiting = [asyncio.create_task(members(api, token(api))) for _ in range(5)]
    while site.calls == 0:  # noqa: ASYNC110 - the server counts
        await asyncio.sleep(0.01)
    began = time.monotonic()
    async with httpx2.AsyncClient() as client:
        assert (await client.get(f"{api.address}/openapi.json")).status_code == 200
        assert (await client.get(f"{api.address}/v1/orgs/{ORG}/me")).status_code == 401
        assert (await client.get(f"{api.ops_address}/readyz")).status_code == 200
    assert not any(task.done() for task in waiting), "the others are not held up by these"
    assert time.monotonic() - began < FETCH_TIMEOUT_S
    answers = await asyncio.gather(*waiting)
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.headers["retry-after"] for answer in answers} == {"2"}
    assert site.calls == 1, "five callers, one fetch"


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (b"302 Found", b"Location: /elsewhere\r\n", b""),
        (b"500 Internal Server Error", b"", b""),
        (b"200 OK", b"", b"<html>"),
        (b"200 OK", b"", b" " * MAX_BYTES + key_set()),
    ],
)
async def test_what_is_no_key_set_is_not_taken_for_one(
    api: ApiProcess, site: KeySite, status: bytes, headers: bytes, body: bytes
) -> None:
    site.status, site.headers, site.body = status, headers, body
    answer = await members(api, token(api))
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert site.calls == 1, "nobody was followed elsewhere"
