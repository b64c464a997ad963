"""Administrators of one large organisation, all at once, while records come in."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.api_process import ApiProcess, api_process
from tests.bench.ground import progress, report
from tests.bench.ground.latencies import percentile
from tests.bench.ground.ledger import FACTS_PER_MEMBER, Built, Ledger, build
from tests.bench.ground.servers import Ground, ground
from tests.bench.ground.worker import ROOT, Deployment, Stuck

MEMBERS = 100_000
QUICK_MEMBERS = 2_000
ADMINS = 20
RATE = 500.0
SECONDS = 30.0
WARM_UP_S = 3.0
READY_TIMEOUT_S = 120.0
ORGANISATION = "org-00000"

# Everybody in the ledger gets a name; the first ones of the organisation administrate it.
NAME_EVERYBODY = """
INSERT INTO membership_fact
    (member_id, joined_at, recorded_at, message_id, status, role, display_name)
SELECT m.member_id, now() - interval '2 years', now(), 'named', 'active',
       CASE WHEN m.user_id = ANY ($1) THEN 'admin' ELSE 'member' END,
       (ARRAY['Ada', 'Ben', 'Chloé', 'Dan', 'Eve', 'Finn', 'Grace', 'Hugo'])[1 + m.member_id % 8]
       || ' ' || m.user_id
FROM member m"""
SELECT_ADMINS = "SELECT user_id FROM member WHERE org_id = $1 ORDER BY user_id LIMIT $2"
COUNT = "SELECT count(*) FROM engagement WHERE org_id = $1 AND level IS NOT NULL"

V1, PAGES = f"/v1/orgs/{ORGANISATION}", f"/admin/orgs/{ORGANISATION}"
# What an administrator looks at, by the figure that it counts for.
LOOKS = (
    ("list", f"{V1}/members"),
    ("overview", f"{V1}/summary"),
    ("list", f"{V1}/members?level=at_risk"),
    ("page", f"{PAGES}/members"),
    ("list", f"{V1}/members?sort=due"),
    ("page", PAGES),
    ("list", f"{V1}/members?due_within_days=30&sort=due"),
    ("list", f"{V1}/members?level=moderate&level=highly_engaged&limit=100"),
    ("page", f"{PAGES}/members?sort=due"),
    ("list", f"{V1}/members?override=true"),
)


class Look(NamedTuple):
    """One answered request: when it began (monotonic) and how long it took."""

    what: str
    began_s: float
    took_ms: float


@dataclass
class Admin:
    """Somebody who looks at one thing after the other on one kept connection, without a pause."""

    api: ApiProcess
    user_id: str
    looks: list[Look] = field(default_factory=list)

    async def work(self, until_s: float) -> None:
        """Look at things until then. Raises Stuck at any answer but 200."""
        address = urlsplit(self.api.address)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        head = (
            f" HTTP/1.1\r\nHost: {address.netloc}\r\n"
            f"Authorization: Bearer {self.api.token(self.user_id)}\r\n\r\n"
        )
        number = random.Random(self.user_id).randrange(len(LOOKS))
        try:
            while time.monotonic() < until_s:
                what, path = LOOKS[number % len(LOOKS)]
                number += 1
                began_s = time.monotonic()
                writer.write(f"GET {path}{head}".encode())
                await self._answer(reader, path)
                self.looks.append(Look(what, began_s, (time.monotonic() - began_s) * 1000))
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, path: str) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        if head.split(b" ", 2)[1] != b"200":
            raise Stuck(f"{path}: {head.decode()}{body.decode()[:500]}")


class Round(NamedTuple):
    """What was seen: by kind milliseconds in order, and requests a second."""

    took_ms: dict[str, list[float]]
    requests_s: float


def main(
    json_path: Path | None = None,
    quick: bool = False,
    *,
    members: int | None = None,
    admins: int = ADMINS,
    rate: float = RATE,
    seconds: float | None = None,
) -> dict[str, Any]:
    """`--members` of the organisation, `--admins` who never pause, `--rate` records/s meanwhile."""
    count = members or (QUICK_MEMBERS if quick else MEMBERS)
    length_s = seconds or (3.0 if quick else SECONDS)
    with ground() as servers:
        seen = asyncio.run(_run(servers, count, admins, rate, length_s))
    metrics: dict[str, float] = {"api.requests_s": seen.requests_s}
    rows = []
    for what, ordered in sorted(seen.took_ms.items()):
        p50, p95, p99 = (percentile(ordered, share) for share in (0.50, 0.95, 0.99))
        metrics |= {f"api.{what}_p50_ms": p50, f"api.{what}_p99_ms": p99}
        rows.append(
            [what, f"{len(ordered):,}", *(f"{v:.0f}" for v in (p50, p95, p99, ordered[-1]))]
        )
    notes = [
        f"{admins} administrators ask one request after the other, each on one connection.",
        f"A worker takes {rate:,.0f} records/s meanwhile; all of it shares the machine.",
        "list: JSON of 50 or 100 members; overview: JSON; page: HTML of both.",
    ]
    columns = ("what", "requests", "p50 ms", "p95 ms", "p99 ms", "max ms")
    title = f"api: an organisation of {count:,} members"
    return report.report("api", metrics, tables=[report.table(title, columns, rows, notes)])


async def _run(servers: Ground, members: int, admins: int, rate: float, seconds: float) -> Round:
    # Nine members of ten are in the first organisation.
    ledger = Ledger(members * 10 // 9 * FACTS_PER_MEMBER + FACTS_PER_MEMBER, 10, one_large=True)
    built = await build(servers, ledger)
    report.say(f"{ledger.members:,} members are evaluated")
    try:
        return await _measure(servers, built, admins, rate, seconds)
    finally:
        await servers.drop_database(built.database)


async def _measure(
    servers: Ground, built: Built, admins: int, rate: float, seconds: float
) -> Round:
    name = servers.fresh("api")
    async with Deployment(servers, name, template=built.database) as deployment:
        connection = await deployment.connect()
        people = [r[0] for r in await connection.fetch(SELECT_ADMINS, ORGANISATION, admins)]
        await connection.execute(NAME_EVERYBODY, people, timeout=600)
        await connection.execute("VACUUM ANALYZE", timeout=600)
        report.say(f"{await connection.fetchval(COUNT, ORGANISATION):,} in one organisation")
        await deployment.start_worker()
        await progress.watch_claims(deployment)
        async with api_process(deployment.database_url) as api:
            producer = await _start_records(deployment, rate, seconds + WARM_UP_S)
            try:
                return await _look(api, people, seconds)
            finally:
                if producer.returncode is None:
                    producer.kill()
                await producer.wait()


async def _look(api: ApiProcess, people: list[str], seconds: float) -> Round:
    from_s = time.monotonic() + WARM_UP_S
    team = [Admin(api, user_id) for user_id in people]
    await asyncio.gather(*(admin.work(from_s + seconds) for admin in team))
    took: dict[str, list[float]] = defaultdict(list)
    for admin in team:
        for look in admin.looks:
            if look.began_s >= from_s:
                took[look.what].append(look.took_ms)
    total = sum(map(len, took.values()))
    return Round({what: sorted(values) for what, values in took.items()}, total / seconds)


async def _start_records(
    deployment: Deployment, rate: float, seconds: float
) -> asyncio.subprocess.Process:
    """Records at an even rate, from a process of its own; it has begun when this returns."""
    settings = deployment.settings
    producer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "tests.bench.ground.steady"),
        *(settings.kafka_bootstrap_servers, settings.topic_attendance, str(rate), str(seconds)),
        *("0.1", "20000", "0"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert producer.stdout is not None
    assert producer.stdin is not None
    line = await asyncio.wait_for(producer.stdout.readline(), READY_TIMEOUT_S)
    if line.strip() != b"ready":
        raise Stuck("the producer did not start")
    producer.stdin.write(b"\n")
    return producer
