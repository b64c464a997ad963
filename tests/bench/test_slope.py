"""The line through a worker's memory."""

from __future__ import annotations

import random

import pytest

from tests.bench.ground.slope import slope


def test_a_straight_line_has_no_error() -> None:
    times = [5.0 * number for number in range(300)]
    found = slope(times, [100 + 7 * at / 3600 for at in times])
    assert found.per_hour == pytest.approx(7)
    assert found.error_per_hour == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_error_tells_how_far_off_it_may_be(seed: int) -> None:
    rng = random.Random(seed)
    times = [5.0 * number for number in range(300)]
    found = slope(times, [100 - 3 * at / 3600 + rng.gauss(0, 0.2) for at in times])
    assert abs(found.per_hour + 3) < 3 * found.error_per_hour
    assert 0.02 < found.error_per_hour < 0.2


def test_samples_that_hang_together_count_less() -> None:
    """The same noise held for a minute at a time: as uncertain as a twelfth of the samples."""
    rng = random.Random(1)
    times = [5.0 * number for number in range(360)]
    alone = slope(times, [rng.gauss(0, 1) for _ in times])
    minutes = [rng.gauss(0, 1) for _ in range(30)]
    together = slope(times, [minutes[number // 12] for number in range(360)])
    assert together.error_per_hour > 2 * alone.error_per_hour
