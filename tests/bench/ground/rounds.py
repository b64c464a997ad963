"""Repetitions in turn, so that what drifts on the machine meets every contender alike."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

Figures = Mapping[str, float]


class Spread(NamedTuple):
    """Median, least and most of some repetitions."""

    median: float
    least: float
    most: float

    @property
    def share(self) -> float:
        """Distance from least to most as a share of the median."""
        return (self.most - self.least) / self.median if self.median else 0.0


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


async def alternate(
    contenders: Mapping[str, Callable[[int], Awaitable[Figures]]],
    repetitions: int,
    say: Callable[[str], None],
) -> dict[str, list[Figures]]:
    """Run every contender once per round; each gets the number of the round and gives figures."""
    results: dict[str, list[Figures]] = {name: [] for name in contenders}
    for number in range(repetitions):
        names = list(contenders)
        # Who goes first has the emptiest caches: take turns in that as well.
        names = names[number % len(names) :] + names[: number % len(names)]
        for name in names:
            figures = await contenders[name](number)
            results[name].append(figures)
            shown = "  ".join(f"{key} {value:,.0f}" for key, value in figures.items())
            say(f"round {number + 1}/{repetitions}  {name:<18} {shown}")
    return results
