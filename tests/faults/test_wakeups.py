"""No wake-up is lost: a record that comes while its member is being evaluated.

The evaluator takes marks before it reads facts. A pause is injected after each of the two.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.faults.attended import attended
from tests.faults.conftest import SceneMaker
from tests.faults.failpoints import Failpoint
from tests.faults.scene import Scene
from tests.faults.verifier import Report

pytestmark = pytest.mark.timeout(120)

LEVEL = "SELECT level FROM member_engagement WHERE user_id = 'ada'"


async def overtaken(
    it: Scene, place: str, *, evaluators: int, mutations: Sequence[str] = ()
) -> Report:
    """Records are applied while an evaluation of their member pauses; what comes of it."""
    worker = it.worker(
        "one",
        Failpoint(place, "hold"),
        mutations=mutations,
        constants={"streams.runtime:EVALUATORS": evaluators},
    )
    await worker.until_ready()
    await it.send([attended("ada", "first", 70)])
    await worker.until_arrived(place)
    await it.send([attended("ada", "second", 5), attended("ada", "third", 4)])
    await it.until_applied(3)
    worker.let_go(place)
    await it.until_idle()
    await it.stop_workers()
    return await it.verify()


@pytest.mark.parametrize("evaluators", [1, 2])
@pytest.mark.parametrize("place", ["taken", "read"])
async def test_a_record_that_comes_during_an_evaluation(
    scene: SceneMaker, place: str, evaluators: int
) -> None:
    async with scene() as it:
        it.require(await overtaken(it, place, evaluators=evaluators))
        assert await it.value(LEVEL) == "highly_engaged"


async def test_marks_that_are_deleted_after_the_facts_were_read(scene: SceneMaker) -> None:
    """The wrong order, which is why there is a right one: the later mark goes with the earlier."""
    async with scene() as it:
        report = await overtaken(it, "read", evaluators=1, mutations=["marks"])
        assert await it.value(LEVEL) == "moderate"
    assert "level moderate instead of highly_engaged" in report.summary()
