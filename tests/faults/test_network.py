"""Connections to the broker and to the database are cut, late, slow, limited, silent. (Fault 10)

Everything goes through proxies: the broker tells whoever asks by way of its proxy to go on doing
so. What is sent and what is looked at goes straight there.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator

import pytest

from service.demo.input_record import InputRecord
from service.demo.local import LocalKafka, LocalPostgres
from service.demo.local.ports import free_port
from tests.faults.conftest import Measured, SceneMaker, Trial
from tests.faults.memory import Peak, peak_memory
from tests.faults.proxy import Proxy, host_and_port, through
from tests.faults.scene import Scene
from tests.faults.workers import Worker

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]

HOST = "127.0.0.1"
MEMORY = 1.5
"""Times what the same workers hold at most while they work off a backlog and all is well."""
RECOVERED_WITHIN_S = 30
SILENCE_S = {"broker": 90, "database": 25}
"""For how long the other end may be silent before a worker gives a connection up: the consumer's
time limit, which has to be above that of a rebalance; a statement's limit and a margin."""
TIMED_OUT = {"broker": "RequestTimedOutError", "database": "TimeoutError"}
NOWHERE = (HOST, 0)


@pytest.fixture(scope="module")
def kafka_proxy() -> Iterator[Proxy]:
    """On the way to the broker; it is there first, since the broker names its port."""
    with Proxy(NOWHERE) as made:
        yield made


@pytest.fixture(scope="module")
def faulty_kafka(kafka_proxy: Proxy) -> Iterator[LocalKafka]:
    """A broker with a second listener, which is reached through the proxy alone."""
    port = free_port()
    listeners = f"PLAINTEXT://{HOST}:{port},PROXIED://{HOST}:{kafka_proxy.port}"
    with LocalKafka(
        port=port,
        extra_listeners={"PROXIED": "PLAINTEXT"},
        extra_properties={"advertised.listeners": listeners},
    ) as broker:
        kafka_proxy.target = host_and_port(broker.bootstrap_of("PROXIED"))
        yield broker


@pytest.fixture
def proxies(kafka_proxy: Proxy, faulty_postgres: LocalPostgres) -> Iterator[dict[str, Proxy]]:
    """Both, without faults."""
    with Proxy((HOST, faulty_postgres.port)) as postgres_proxy:
        yield {"broker": kafka_proxy, "database": postgres_proxy}
        kafka_proxy.heal()
        kafka_proxy.cut()


async def cut(proxy: Proxy, lasts_s: float) -> None:
    """Every connection is reset once a second, and for a while nobody gets a new one."""
    ends_at = time.monotonic() + lasts_s
    while time.monotonic() < ends_at:
        proxy.cut()
        proxy.refusing = lasts_s / 4 < ends_at - time.monotonic() < lasts_s / 2
        await asyncio.sleep(1)


async def late(proxy: Proxy, lasts_s: float) -> None:
    """Everything arrives 2 s later, each way."""
    proxy.delay_s = 2.0
    await asyncio.sleep(lasts_s)


async def slow(proxy: Proxy, lasts_s: float) -> None:
    """1 KB/s for each connection."""
    proxy.bytes_per_s = 1024
    await asyncio.sleep(lasts_s)


async def limited(proxy: Proxy, lasts_s: float) -> None:
    """Each connection is reset after 20 KB from the server."""
    proxy.bytes_until_cut = 20_000
    await asyncio.sleep(lasts_s)


async def hanging(proxy: Proxy, lasts_s: float) -> None:
    """All connections stay open, also new ones, and nothing gets through."""
    proxy.holding = True
    await asyncio.sleep(lasts_s)


async def after_a_backlog(it: Scene, load: Iterable[InputRecord]) -> tuple[list[Worker], Peak]:
    """Two workers that have worked off a load, and what they held in memory meanwhile.

    There is a backlog after the trouble, too, and full batches take more than a trickle.
    """
    await it.send(load)
    workers = await it.ready_workers("one", "two")
    async with peak_memory(workers) as peak:
        await it.until_idle()
    return workers, peak


Trouble = Callable[[Proxy, float], Awaitable[None]]
LASTS_S: dict[Trouble, float] = {cut: 40, late: 60, slow: 60, limited: 40, hanging: 120}


@pytest.mark.parametrize("where", ["broker", "database"])
@pytest.mark.parametrize("trouble", LASTS_S, ids=lambda trouble: str(trouble.__name__))
async def test_fault_10_network(
    scene: SceneMaker, trial: Trial, measured: Measured, proxies: dict[str, Proxy],
    where: str, trouble: Trouble,
) -> None:  # fmt: skip
    lasts_s = LASTS_S[trouble] / (1 if trial.is_full else 3)
    async with scene(
        bootstrap=f"{HOST}:{proxies['broker'].port}", database=through(proxies["database"])
    ) as it:
        load = trial.load()
        workers, calm = await after_a_backlog(it, itertools.islice(load, trial.records // 2))
        async with peak_memory(workers) as troubled:
            sending = asyncio.create_task(it.send(load, rate=trial.records / 2 / (lasts_s + 10)))
            await it.until_applied(await it.applied() + trial.records // 40)
            await trouble(proxies[where], lasts_s)
            proxies[where].heal()
            recovery_s = await it.until_moving()
            await sending
            await it.until_idle()
        assert all(worker.running for worker in workers)
        if trouble is hanging and lasts_s > SILENCE_S[where]:
            assert all(worker.said(TIMED_OUT[where]) for worker in workers)
        report = await it.finish()
        measured(10, report, recovery_s)
        assert recovery_s <= RECOVERED_WITHIN_S
        assert troubled.resident < MEMORY * calm.resident


@pytest.mark.parametrize("where", ["broker", "database"])
async def test_fault_10_forgotten_connections(
    scene: SceneMaker, trial: Trial, measured: Measured, proxies: dict[str, Proxy], where: str
) -> None:
    """Nobody is told that the connections are dead: only the workers' own timeouts find out."""
    async with scene(
        bootstrap=f"{HOST}:{proxies['broker'].port}", database=through(proxies["database"])
    ) as it:
        load = trial.load()
        workers, calm = await after_a_backlog(it, itertools.islice(load, trial.records // 2))
        async with peak_memory(workers) as troubled:
            sending = asyncio.create_task(it.send(load, rate=trial.records / 2 / 60))
            await it.until_applied(await it.applied() + trial.records // 40)
            proxies[where].forget()
            began = time.monotonic()
            # So that every partition lags behind what is sent from now on.
            await asyncio.sleep(2)
            await it.until_moving(300)
            recovery_s = time.monotonic() - began
            await sending
            await it.until_idle()
        assert all(worker.running for worker in workers)
        assert all(worker.said(TIMED_OUT[where]) for worker in workers)
        report = await it.finish()
        measured(10, report, recovery_s)
        assert recovery_s <= SILENCE_S[where] + RECOVERED_WITHIN_S
        assert troubled.resident < MEMORY * calm.resident
