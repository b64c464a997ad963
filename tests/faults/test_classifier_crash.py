"""A classifier that is killed pays for the calls in flight and for no others."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest

from service.demo.fake_claude import FakeClaude
from service.demo.fake_messages import Act
from tests.faults.classifier_main import KILLED, LEASE_S
from tests.postgres.claude.scene import Scene, open_scene

IN_FLIGHT = 2  # calls at once of the classifier under test

# Each process pays for the import of the SDK, which takes long on a busy machine.
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeClaude]:
    with FakeClaude() as fake:
        yield fake


async def run_to(scene: Scene, database: str, place: str) -> int:
    """A classifier in a process of its own; how it ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.classifier_main", database, scene.fake.base_url, place
    )  # fmt: skip
    try:
        async with asyncio.timeout(80):
            code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
    await asyncio.sleep(LEASE_S + 0.2)
    return code


@pytest.mark.parametrize("place", ["claimed", "asked", "stored"])
async def test_killed_and_started_again(server: FakeClaude, database: str, place: str) -> None:
    async with open_scene(database, server) as scene:
        for number, attended in enumerate([(5,), (50,), (95,), (300,), (5, 6)]):
            await scene.member(f"user-{number}", attended=attended)
        await scene.evaluate()
        assert await run_to(scene, database, place) == KILLED
        assert await run_to(scene, database, "never") == 0
        await scene.evaluate()
        counts = await scene.row(
            "SELECT count(*) FILTER (WHERE status = 'answered'), count(*) FROM verdict"
        )
        assert tuple(counts) == (5, 5)
        sources = await scene.rows("SELECT DISTINCT computed_source FROM engagement")
        assert [row[0] for row in sources] == ["claude"]
        assert 5 <= len(scene.fake.requests) <= 5 + IN_FLIGHT
        # Every call that went out was counted before it did.
        calls = (await scene.row("SELECT calls FROM claude_usage"))[0]
        assert calls >= len(scene.fake.requests)


async def test_killed_before_the_repetition(server: FakeClaude, database: str) -> None:
    async with open_scene(database, server) as scene:
        scene.fake.otherwise = Act.WRONG_LEVEL
        try:
            await scene.member("ada", attended=(10,))
            await scene.evaluate()
            assert await run_to(scene, database, "again") == KILLED
            assert await run_to(scene, database, "never") == 0
        finally:
            scene.fake.otherwise = Act.NORMAL
        verdict = await scene.row("SELECT status, attempts FROM verdict")
        # The repetition was reserved and lost with the process; the first question is never asked
        # again.
        assert tuple(verdict) == ("refused", 3)
        contents = [r.body["messages"][0]["content"] for r in scene.fake.requests]
        assert ["was refused" in content for content in contents] == [False, True]
