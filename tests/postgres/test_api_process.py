"""The API as a process: its start, what operators ask it, and its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import httpx2
import pytest

from service.api.middleware import MAX_BODY_BYTES
from service.texts import is_clean
from tests.api_community import ADMIN, MEMBER, ORG, Community, settle
from tests.api_process import SECRET, ApiProcess, api_process
from tests.servers import PostgresServer, run_sql

OVERRIDE = f"/v1/orgs/{ORG}/members/{MEMBER}/override"


@pytest.fixture
async def community(database: str) -> AsyncIterator[Community]:
    settled = await settle(database)
    yield settled
    await settled.connection.close()


@pytest.fixture
async def api(database: str) -> AsyncIterator[ApiProcess]:
    async with api_process(database) as running:
        yield running


async def start(**environment: str) -> tuple[int, str]:
    """Run `engagement api` until it ends by itself: its exit code, and what it said."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service.cli.main", "api",
        env=kept | environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, output.decode()


def client(api: ApiProcess, user: str = ADMIN) -> httpx2.AsyncClient:
    headers = {"Authorization": f"Bearer {api.token(user)}"}
    return httpx2.AsyncClient(base_url=api.address, headers=headers, timeout=30)


async def test_operators_port(database: str, community: Community) -> None:
    async with api_process(database) as api, client(api) as someone:
        assert (await someone.get(f"/v1/orgs/{ORG}/members")).status_code == 200
        async with httpx2.AsyncClient(base_url=api.ops_address) as operator:
            assert (await operator.get("/livez")).json() == {"status": "ok"}
            ready = await operator.get("/readyz")
            assert (ready.status_code, ready.json()["checks"]) == (200, {"database": "ok"})
            metrics = (await operator.get("/metrics")).text
            wanted = 'method="GET",route="/v1/orgs/{org}/members",status="200"'
            assert f"engagement_http_requests_total{{{wanted}}} 1.0" in metrics
            assert ADMIN not in metrics
            await community.execute("ALTER TABLE engagement NO FORCE ROW LEVEL SECURITY")
            unready = await operator.get("/readyz")
            assert unready.status_code == 503
            assert "engagement" in unready.json()["checks"]["database"]
            assert (await operator.get("/livez")).status_code == 200
            assert (await operator.head("/livez")).status_code == 200
        # Neither is on the port that everybody reaches.
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await someone.get(path)).status_code == 404


async def test_head_on_a_connection_that_is_kept(database: str, community: Community) -> None:
    """A body that came all the same would be taken for the next answer."""
    async with api_process(database) as api, client(api) as someone:
        for path in (f"/v1/orgs/{ORG}/members", "/openapi.json", "/static/admin.css", "/v1/none"):
            head, whole = await someone.head(path), await someone.get(path)
            assert head.status_code == whole.status_code, path
            assert (head.content, head.headers["content-length"]) == (b"", str(len(whole.content)))
        async with httpx2.AsyncClient(base_url=api.ops_address) as operator:
            metrics = (await operator.get("/metrics")).text
        wanted = 'method="HEAD",route="/v1/orgs/{org}/members",status="200"'
        assert f"engagement_http_requests_total{{{wanted}}} 1.0" in metrics


async def test_sigterm_lets_requests_under_way_end(database: str, community: Community) -> None:
    async with api_process(database) as api, client(api) as someone:
        held = community.connection.transaction()
        await held.start()
        await community.execute(
            "SELECT FROM engagement WHERE member_id = $1 FOR UPDATE",
            community.members[ORG, MEMBER],
        )
        body = {"level": "new", "notes": "slow"}
        slow = asyncio.create_task(someone.put(OVERRIDE, json=body))
        await asyncio.sleep(0.5)
        api.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        assert api.process.returncode is None, "it waits for the request"
        async with httpx2.AsyncClient() as operator:
            assert (await operator.get(f"{api.ops_address}/readyz")).status_code == 503
        with pytest.raises(httpx2.TransportError):
            async with client(api) as late:
                await late.get(f"/v1/orgs/{ORG}/summary")
        await held.rollback()
        assert (await slow).status_code == 200
        assert await api.stop() == 0


async def test_a_body_may_have_its_limit_and_no_more(database: str, community: Community) -> None:
    async with api_process(database) as api, client(api) as someone:
        headers = {"Content-Type": "application/json"}
        padding = b" " * (MAX_BODY_BYTES - 32)
        fits = b'{"level":"new","notes":"n"}' + padding
        response = await someone.put(OVERRIDE, content=fits[:MAX_BODY_BYTES], headers=headers)
        assert response.status_code == 200, response.text
        for content in (b" " * (MAX_BODY_BYTES + 1), b" " * (3 * MAX_BODY_BYTES)):
            response = await someone.put(OVERRIDE, content=content, headers=headers)
            assert response.status_code == 413
            assert response.headers["content-type"] == "application/problem+json"

        async def drip() -> AsyncIterator[bytes]:
            for _ in range(40):
                yield b" " * 4096

        response = await someone.put(OVERRIDE, content=drip(), headers=headers)
        assert response.status_code == 413, "nor in pieces of unknown number"


async def test_a_slow_body_is_given_up(database: str, community: Community) -> None:
    async with api_process(database) as api:
        address = urlsplit(api.address)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(
            f"PUT {OVERRIDE} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 100\r\n"
            f"Authorization: Bearer {api.token(ADMIN)}\r\n\r\n{{".encode()
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n"), 20)
        assert b"408" in head
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: at_risk\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_a_problem_too(api: ApiProcess, sent: bytes) -> None:
    address = urlsplit(api.address)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(sent)
    head, _, body = (await asyncio.wait_for(reader.read(), 20)).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    assert b"no-store" in head
    problem = json.loads(body)
    assert (problem["status"], problem["type"]) == (400, "urn:engagement:problem:malformed")
    assert is_clean(body.decode())


class Wire:
    """A connection to the database that can be cut: a port of its own, forwarded."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def connect(self) -> None:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._open |= {writer, far_writer}
        ways = (self._pump(reader, far_writer), self._pump(far_reader, writer))
        await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()


async def test_the_database_away_is_503_and_comes_back(database: str, community: Community) -> None:
    url = urlsplit(database)
    assert url.hostname is not None
    assert url.port is not None
    wire = Wire(url.hostname, url.port)
    await wire.connect()
    cut_off = url._replace(netloc=f"{url.username}:{url.password}@127.0.0.1:{wire.port}")
    async with api_process(cut_off.geturl()) as api, client(api) as someone:
        paths = [f"/v1/orgs/{ORG}/{part}" for part in ("members", "summary", "me")]
        for path in paths:
            assert (await someone.get(path)).status_code == 200
        await wire.cut()
        for path in paths:
            away = await someone.get(path)
            assert away.status_code == 503, away.text
            assert away.headers["retry-after"]
            assert away.headers["content-type"] == "application/problem+json"
            assert "database" not in away.text
        page = await someone.get(f"/admin/orgs/{ORG}/members")
        assert (page.status_code, "One moment" in page.text) == (503, True)
        await wire.connect()
        for path in paths:
            assert (await someone.get(path)).status_code == 200
    await wire.cut()


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({}, "nothing says who may sign tokens"),
        (
            {"ENGAGEMENT_JWT_DEV_SECRET": SECRET, "ENGAGEMENT_JWT_JWKS_URL": "https://x.example"},
            "exactly one",
        ),
        ({"ENGAGEMENT_JWT_PUBLIC_KEY_FILE": "/nowhere.pem"}, "ENGAGEMENT_JWT_PUBLIC_KEY_FILE"),
        ({"ENGAGEMENT_JWT_JWKS_URL": "http://keys.example"}, "must be https"),
    ],
)
async def test_unclear_settings_stop_the_start(
    database: str, environment: dict[str, str], complaint: str
) -> None:
    code, output = await start(DATABASE_URL=database, **environment)
    assert code == 2
    assert complaint in output
    assert SECRET not in output


async def test_operators_are_answered_while_the_database_is_away(database: str) -> None:
    url = urlsplit(database)
    assert url.hostname is not None
    assert url.port is not None
    wire = Wire(url.hostname, url.port)
    await wire.connect()
    await wire.cut()
    cut_off = url._replace(netloc=f"{url.username}:{url.password}@127.0.0.1:{wire.port}")
    async with api_process(cut_off.geturl(), wait=False) as api:
        async with httpx2.AsyncClient(base_url=api.ops_address) as operator:
            unready = await _first_answer(operator, "/readyz")
            assert unready.status_code == 503
            assert unready.json()["checks"] == {"parts": "waiting for the database"}
            # Ending it would mend nothing.
            assert (await operator.get("/livez")).status_code == 200
        await wire.connect()
        await api.until_ready()
        assert await api.stop() == 0
    await wire.cut()


async def test_waiting_for_the_database_can_be_ended() -> None:
    async with api_process("postgresql://a:b@127.0.0.1:1/c", wait=False) as api:
        async with httpx2.AsyncClient(base_url=api.ops_address) as operator:
            await _first_answer(operator, "/livez")
        assert await api.stop() == 0


async def _first_answer(operator: httpx2.AsyncClient, path: str) -> httpx2.Response:
    async with asyncio.timeout(30):
        while True:
            try:
                return await operator.get(path)
            except httpx2.TransportError:
                await asyncio.sleep(0.1)


async def test_a_port_that_is_taken_stops_the_start(database: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, output = await start(
            DATABASE_URL=database,
            ENGAGEMENT_JWT_DEV_SECRET=SECRET,
            ENGAGEMENT_API_PORT=str(taken.getsockname()[1]),
            ENGAGEMENT_API_OPS_PORT="1",
        )
    assert code == 2
    assert "ENGAGEMENT_API" in output


@pytest.mark.parametrize(
    ("damage", "repair", "complaint"),
    [
        (
            "ALTER ROLE engagement_api RENAME TO engagement_api_away",
            "ALTER ROLE engagement_api_away RENAME TO engagement_api",
            "role engagement_api is missing",
        ),
        (
            "ALTER ROLE engagement_api BYPASSRLS",
            "ALTER ROLE engagement_api NOBYPASSRLS",
            "bypasses row-level security",
        ),
        (
            "GRANT engagement_worker TO engagement_api",
            "REVOKE engagement_worker FROM engagement_api",
            "member of other roles",
        ),
    ],
)
async def test_a_role_that_does_not_confine_stops_the_start(
    database: str, postgres_server: PostgresServer, damage: str, repair: str, complaint: str
) -> None:
    await run_sql(postgres_server, damage)
    try:
        code, output = await start(DATABASE_URL=database, ENGAGEMENT_JWT_DEV_SECRET=SECRET)
    finally:
        await run_sql(postgres_server, repair)
    assert code == 2
    assert complaint in output


async def test_a_login_with_the_apis_role_alone_is_enough(
    database: str, community: Community, postgres_server: PostgresServer
) -> None:
    """What it cannot do, nobody who takes the API over can do either."""
    await run_sql(postgres_server, "CREATE ROLE api_login LOGIN PASSWORD 'of-a-test'")
    try:
        await run_sql(
            postgres_server, "GRANT engagement_api TO api_login WITH INHERIT FALSE, SET TRUE"
        )
        await run_sql(postgres_server, "GRANT engagement_api TO api_login WITH INHERIT TRUE")
        url = urlsplit(database)
        netloc = f"api_login:of-a-test@{url.hostname}:{url.port}"
        login = url._replace(netloc=netloc).geturl()
        async with api_process(login) as api, client(api) as someone:
            for path in ("members", f"members/{MEMBER}", "summary", "thresholds", "me"):
                assert (await someone.get(f"/v1/orgs/{ORG}/{path}")).status_code == 200
            put = await someone.put(OVERRIDE, json={"level": "new", "notes": "n"})
            assert put.status_code == 200, put.text
            erased = await someone.delete(f"/v1/orgs/{ORG}/members/{MEMBER}")
            assert erased.status_code == 200, erased.text
        intruder = await asyncpg.connect(login)
        try:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await intruder.fetch("SELECT * FROM dead_letter")
            assert await intruder.fetch("SELECT * FROM member") == []
        finally:
            await intruder.close()
    finally:
        await run_sql(postgres_server, "DROP ROLE api_login")
