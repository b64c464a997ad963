"""How fast something grows: a straight line by least squares, with the error of its slope."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

BLOCKS = 30


class Slope(NamedTuple):
    """Growth per hour and its standard error."""

    per_hour: float
    error_per_hour: float


def slope(times_s: Sequence[float], values: Sequence[float]) -> Slope:
    """Of samples in the order of time, at least three.

    Neighbouring samples are alike, so each counting for itself would make the error too small:
    the line goes through the means of at most BLOCKS equal parts.
    """
    blocks = min(BLOCKS, len(times_s))
    cuts = [len(times_s) * number // blocks for number in range(blocks + 1)]
    parts = [slice(first, last) for first, last in itertools.pairwise(cuts)]
    x = [statistics.fmean(times_s[part]) / 3600 for part in parts]
    y = [statistics.fmean(values[part]) for part in parts]
    line = statistics.linear_regression(x, y)
    missed = sum((b - line.slope * a - line.intercept) ** 2 for a, b in zip(x, y, strict=True))
    middle = statistics.fmean(x)
    spread = sum((a - middle) ** 2 for a in x)
    return Slope(line.slope, math.sqrt(missed / (len(x) - 2) / spread))
