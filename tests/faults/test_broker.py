"""The broker restarts, forgets the group, loses or makes anew a topic. (Faults 6, 7, 17)"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from service.demo.input_record import InputRecord
from service.demo.local import LocalKafka
from tests.faults.conftest import Measured, SceneMaker, Trial
from tests.faults.failpoints import Failpoint
from tests.faults.kafka_log import read_topics
from tests.faults.scene import Scene
from tests.servers import cloned_database

pytestmark = pytest.mark.timeout(240)

INCIDENTS = "SELECT kind, partition, details FROM incident ORDER BY incident_id"
RESUME = ("dlq", "resume")


@pytest.mark.parametrize("how", ["restarted", "killed"])
async def test_fault_06_broker(
    scene: SceneMaker, trial: Trial, measured: Measured, faulty_kafka: LocalKafka, how: str
) -> None:
    async with scene() as it:
        workers = await it.ready_workers("one", "two")
        sending = asyncio.create_task(it.send(trial.load(), rate=trial.records / 12))
        await it.until_applied(trial.records // 10)
        await asyncio.to_thread(faulty_kafka.stop if how == "restarted" else faulty_kafka.kill)
        await asyncio.sleep(2)
        await asyncio.to_thread(faulty_kafka.start)
        back_at = time.monotonic()
        await it.until_applied(await it.applied() + 500)
        recovery_s = time.monotonic() - back_at
        await sending
        await it.until_idle()
        assert all(worker.running for worker in workers)
        report = await it.finish()
        measured(6, report, recovery_s)
        assert recovery_s <= 30


@pytest.mark.nightly
@pytest.mark.timeout(1800)
async def test_fault_06_three_brokers_one_after_the_other(
    faulty_postgres: object, faulty_template: str, trial: Trial, measured: Measured,
    topic_prefix: str, tmp_path: Path,
) -> None:  # fmt: skip
    with LocalKafka(nodes=3) as cluster:
        settings = {"ENGAGEMENT_TOPIC_REPLICATION_FACTOR": "3"}
        async with (
            cloned_database(faulty_postgres, faulty_template) as url,  # type: ignore[arg-type]
            Scene(cluster.bootstrap, url, topic_prefix, tmp_path, settings) as it,
        ):
            workers = await it.ready_workers("one", "two")
            have_rolled = threading.Event()
            records = _until(have_rolled, trial)
            sending = asyncio.create_task(it.send(records, rate=trial.records / 60))
            await it.until_applied(trial.records // 20)
            recovery_s = 0.0
            for node in (1, 2, 3):
                await asyncio.to_thread(cluster.kill if node == 2 else cluster.stop, node)
                began = time.monotonic()
                await it.until_applied(await it.applied() + 200)
                recovery_s = max(recovery_s, time.monotonic() - began)
                await asyncio.to_thread(cluster.start)
                await asyncio.sleep(5)
            have_rolled.set()
            await sending
            await it.until_idle()
            assert all(worker.running for worker in workers)
            report = await it.finish()
            measured(6, report, recovery_s)
            assert recovery_s <= 60


def _until(done: threading.Event, trial: Trial) -> Iterator[InputRecord]:
    """The trial's load, and after it other people's for as long as it takes."""
    yield from trial.load()
    for seed in itertools.count(1):
        for record in trial.load(seed):
            if done.is_set():
                return
            yield record


@pytest.mark.parametrize("how", ["deleted", "another"])
async def test_fault_07_group_lost(
    scene: SceneMaker, trial: Trial, measured: Measured, how: str
) -> None:
    async with scene() as it:
        await it.ready_workers("before")
        await it.send(trial.load())
        await it.until_idle()
        await it.stop_workers()
        group = it.environment["ENGAGEMENT_CONSUMER_GROUP"]
        if how == "deleted":
            admin = AdminClient({"bootstrap.servers": it.bootstrap, "log_level": 0})
            await asyncio.to_thread(admin.delete_consumer_groups([group])[group].result, 30)
        else:
            it.environment["ENGAGEMENT_CONSUMER_GROUP"] = f"{group}-2"
        moved = await it.applied()
        after = it.worker("after", Failpoint("fence", "watch"))
        await after.until_ready()
        began = time.monotonic()
        await it.send(itertools.islice(trial.load(1), 100))
        await it.until_idle()
        recovery_s = time.monotonic() - began
        assert await it.applied() == moved + 100
        assert len(list(after.folder.glob("fence.*"))) <= 100
        measured(7, await it.finish(), recovery_s)


# --- fault 17


async def test_fault_17_truncated_while_we_were_away(
    scene: SceneMaker, trial: Trial, measured: Measured
) -> None:
    async with scene() as it:
        await it.ready_workers("before")
        await it.send(itertools.islice(trial.load(), 4_000))
        await it.until_idle()
        await it.stop_workers()
        kept = await asyncio.to_thread(read_topics, it.bootstrap, it.topics.values())
        stood = await it.offsets()
        await it.send(itertools.islice(trial.load(1), 4_000))
        # Of the second half of these, nothing is left.
        part = (it.topics["attendance"], 3)
        first = (stood[part] + it.ends[part]) // 2
        delete_records(it, part, first)
        began = time.monotonic()
        await it.ready_workers("after")
        await it.until_idle()
        (incident,) = await it.fetch(INCIDENTS)
        assert (incident["kind"], incident["partition"]) == ("records_lost", 3)
        details = json.loads(incident["details"])
        assert (details["next_offset"], details["first"]) == (stood[part], first)
        await it.stop_workers()
        report = await it.verify(earlier=kept)
        it.require(report)
        measured(17, report, time.monotonic() - began)


async def test_fault_17_truncated_under_a_worker_that_lags(scene: SceneMaker, trial: Trial) -> None:
    async with scene(ENGAGEMENT_BATCH_MAX_RECORDS="50") as it:
        worker = it.worker("one", Failpoint("fence", "hold"))
        await worker.until_ready()
        await it.send(itertools.islice(trial.load(), 20_000))
        await worker.until_arrived("fence")
        parts = [part for part in it.ends if part[0] == it.topics["attendance"]]
        for part in parts:
            delete_records(it, part, it.ends[part] - 5)
        worker.let_go("fence")
        await it.until_idle()
        kinds = {row["kind"] for row in await it.fetch(INCIDENTS)}
        assert kinds == {"records_lost"}
        assert worker.running


@pytest.mark.parametrize("records", [0, 12_000], ids=["shorter", "longer"])
async def test_fault_17_made_anew(
    scene: SceneMaker, trial: Trial, measured: Measured, records: int
) -> None:
    async with scene() as it:
        await it.ready_workers("before")
        await it.send(itertools.islice(trial.load(), 4_000))
        await it.until_idle()
        await it.stop_workers()
        kept = await asyncio.to_thread(read_topics, it.bootstrap, it.topics.values())
        await make_anew(it, it.topics["attendance"])
        await it.send(itertools.islice(trial.load(1), records))
        after = it.worker("after")
        kind = "topic_changed" if records else "topic_shorter"
        await after.until_said("partition_stopped", 8)
        incidents = await it.fetch(INCIDENTS)
        assert [(row["kind"], row["partition"]) for row in incidents] == [
            (kind, number) for number in range(8)
        ]
        status, body = await after.get("/readyz")
        assert status == 503
        assert "dlq resume" in body
        assert (await after.get("/livez"))[0] == 200
        began = time.monotonic()
        await it.command(*RESUME)
        await it.send(itertools.islice(trial.load(2), 1_000))
        await it.until_idle()
        recovery_s = time.monotonic() - began
        await after.until_ready(10)
        await it.stop_workers()
        report = await it.verify(earlier=kept)
        it.require(report)
        measured(17, report, recovery_s)


def delete_records(it: Scene, part: tuple[str, int], first: int) -> None:
    """Truncate a partition so that it begins at `first`."""
    admin = AdminClient({"bootstrap.servers": it.bootstrap, "log_level": 0})
    target = TopicPartition(*part, first)
    admin.delete_records([target])[target].result(30)


async def make_anew(it: Scene, topic: str) -> None:
    """Delete a topic and create it again."""
    from streams.topics import apply_topics, missing_topics

    admin = AdminClient({"bootstrap.servers": it.bootstrap, "log_level": 0})
    await asyncio.to_thread(admin.delete_topics([topic])[topic].result, 30)

    async def gone() -> bool:
        return topic in await missing_topics(it.settings)

    await it.until("the topic to be gone", gone, 30)
    it.ends = {part: end for part, end in it.ends.items() if part[0] != topic}

    async def there() -> bool:
        return topic in await apply_topics(it.settings)

    await it.until("the topic to be there again", there, 30)
