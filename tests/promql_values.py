"""What a PromQL expression comes to on given samples.

Unlike Prometheus, `rate` and `increase` do not extrapolate to the edges of their range.
"""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

from tests.promql import Binary, Call, Node, Selector

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
Value = Vector | float
Points = Sequence[tuple[float, float]]  # (instant in seconds, value)
Samples = Mapping[Labels, Points]

LOOK_BACK_S: Final = 300.0
REDUCERS: Final[Mapping[str, Callable[[list[float]], float]]] = {
    "sum": math.fsum, "max": max, "min": min, "count": len,
}  # fmt: skip
COMPARISONS: Final = {
    "==": operator.eq, "!=": operator.ne, ">": operator.gt,
    "<": operator.lt, ">=": operator.ge, "<=": operator.le,
}  # fmt: skip
ARITHMETIC: Final = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def evaluate(node: Node, samples: Samples, at: float) -> Value:
    """The value at an instant, in seconds."""
    if isinstance(node, float):
        return node
    if isinstance(node, Selector):
        return _latest(node, samples, at)
    if isinstance(node, Binary):
        left, right = (evaluate(side, samples, at) for side in (node.left, node.right))
        return _combine(node.mark, left, right)
    if node.by is not None:
        return _aggregate(node, evaluate(node.arguments[0], samples, at))
    return _call(node, samples, at)


def _chosen(selector: Selector, samples: Samples) -> Iterator[tuple[Labels, Points]]:
    for labels, points in samples.items():
        named = dict(labels)
        if named.pop("__name__") == selector.name and all(
            matcher.holds(named) for matcher in selector.matchers
        ):
            yield frozenset(named.items()), points


def _latest(selector: Selector, samples: Samples, at: float) -> Vector:
    found = {}
    for labels, points in _chosen(selector, samples):
        seen = [value for t, value in points if at - LOOK_BACK_S < t <= at]
        if seen:
            found[labels] = seen[-1]
    return found


def _combine(mark: str, left: Value, right: Value) -> Value:
    if mark in ("and", "or", "unless"):
        assert isinstance(left, dict)
        assert isinstance(right, dict)
        if mark == "or":
            return {**{k: v for k, v in right.items() if k not in left}, **left}
        return {k: v for k, v in left.items() if (k in right) == (mark == "and")}
    if isinstance(left, float) and isinstance(right, float):
        return _number(mark, left, right)
    keys = set(left if isinstance(left, dict) else _vector(right))
    if isinstance(left, dict) and isinstance(right, dict):
        keys = left.keys() & right.keys()
    found = {}
    for key in keys:
        one = left[key] if isinstance(left, dict) else left
        other = right[key] if isinstance(right, dict) else right
        if mark not in COMPARISONS:
            found[key] = _number(mark, one, other)
        elif COMPARISONS[mark](one, other):
            found[key] = one if isinstance(left, dict) else other
    return found


def _vector(value: Value) -> Vector:
    assert isinstance(value, dict)
    return value


def _number(mark: str, left: float, right: float) -> float:
    if mark == "/":
        return left / right if right else math.nan
    return float(ARITHMETIC[mark](left, right))


def _aggregate(node: Call, value: Value) -> Vector:
    groups: dict[Labels, list[float]] = defaultdict(list)
    for labels, number in _vector(value).items():
        kept = frozenset((k, v) for k, v in labels if k in (node.by or ()))
        groups[kept].append(number)
    return {labels: float(REDUCERS[node.name](group)) for labels, group in groups.items()}


def _call(node: Call, samples: Samples, at: float) -> Value:
    if node.name == "time":
        return at
    if node.name == "absent":
        return {} if _vector(evaluate(node.arguments[0], samples, at)) else {frozenset(): 1.0}
    if node.name == "histogram_quantile":
        quantile, buckets = (evaluate(argument, samples, at) for argument in node.arguments)
        assert isinstance(quantile, float)
        return _quantile(quantile, _vector(buckets))
    (selector,) = node.arguments
    assert isinstance(selector, Selector)
    assert selector.range_s, f"{node.name} needs a range"
    found = {}
    for labels, points in _chosen(selector, samples):
        within = [(t, value) for t, value in points if at - selector.range_s < t <= at]
        if node.name == "max_over_time" and within:
            found[labels] = max(value for _, value in within)
        elif len(within) > 1:
            grown = sum(
                now - before if now >= before else now for (_, before), (_, now) in pairwise(within)
            )
            span = within[-1][0] - within[0][0]
            found[labels] = grown / span if node.name == "rate" else grown
    return found


def _quantile(quantile: float, buckets: Vector) -> Vector:
    groups: dict[Labels, list[tuple[float, float]]] = defaultdict(list)
    for labels, count in buckets.items():
        bound = float(dict(labels)["le"])
        groups[frozenset((k, v) for k, v in labels if k != "le")].append((bound, count))
    found = {}
    for labels, group in groups.items():
        group.sort()
        rank = quantile * group[-1][1]
        low, below = 0.0, 0.0
        for bound, count in group:
            if count >= rank and count > below:
                inside = low if math.isinf(bound) else bound
                found[labels] = low + (inside - low) * (rank - below) / (count - below)
                break
            low, below = bound, count
    return found
