"""As much of PromQL as alerts and dashboard use, parsed strictly; `promql_values` evaluates it.

Beyond us are `on`, `ignoring`, `group_left`, `bool`, `offset`, subqueries and other functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)(?![\da-zA-Z_:.])|(?P<duration>\d+[smhd])"
    r"|(?P<name>[a-zA-Z_:$][a-zA-Z0-9_:]*)|(?P<text>\"[^\"]*\")"
    r"|(?P<mark>=~|!~|!=|==|>=|<=|[-+*/(){}\[\],=<>]))"
)


class Matcher(NamedTuple):
    """One condition on a label."""

    label: str
    mark: str
    value: str

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether a series meets it."""
        found = labels.get(self.label, "")
        if self.mark in ("=~", "!~"):
            return bool(re.fullmatch(self.value, found)) == (self.mark == "=~")
        return (found == self.value) == (self.mark == "=")


class Selector(NamedTuple):
    """Series by name and labels; over a range, or the latest sample (0)."""

    name: str
    matchers: tuple[Matcher, ...]
    range_s: float


class Call(NamedTuple):
    """A function or an aggregation; `by` None: a function."""

    name: str
    arguments: tuple[Node, ...]
    by: tuple[str, ...] | None


class Binary(NamedTuple):
    """Two sides and what is between them."""

    mark: str
    left: Node
    right: Node


Node = float | Selector | Call | Binary

LEVELS: Final = (
    ("or",), ("and", "unless"), ("==", "!=", ">", "<", ">=", "<="), ("+", "-"), ("*", "/"),
)  # fmt: skip
AGGREGATIONS: Final = ("sum", "max", "min", "count")
FUNCTIONS: Final = ("rate", "increase", "absent", "time", "histogram_quantile", "max_over_time")


def parse(text: str) -> Node:
    """The expression. Raises ValueError for what is wrong or beyond us."""
    parser = _Parser(list(_tokens(text)))
    node = parser.expression(0)
    parser.expect("end")
    return node


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"not understood: {text[position:]!r}")
        kind = str(match.lastgroup)
        yield kind, match[kind]
        position = match.end()
    yield "end", "end"


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens

    def _next(self) -> tuple[str, str]:
        return self._tokens.pop(0)

    def _is(self, *texts: str) -> bool:
        return self._tokens[0][1] in texts and self._tokens[0][0] != "text"

    def expect(self, text: str) -> None:
        """Take this token. Raises ValueError when it is another."""
        if not self._is(text):
            raise ValueError(f"{text} expected, not {self._tokens[0][1]}")
        self._next()

    def expression(self, level: int) -> Node:
        """Everything that binds at least as strongly as this level."""
        if level == len(LEVELS):
            return self._primary()
        node = self.expression(level + 1)
        while self._is(*LEVELS[level]):
            node = Binary(self._next()[1], node, self.expression(level + 1))
        return node

    def _primary(self) -> Node:
        kind, text = self._next()
        if kind == "number":
            return float(text)
        if text == "(" and kind == "mark":
            node = self.expression(0)
            self.expect(")")
            return node
        if kind != "name":
            raise ValueError(f"not expected: {text}")
        if text in AGGREGATIONS:
            return self._aggregation(text)
        if self._is("("):
            if text not in FUNCTIONS:
                raise ValueError(f"no function {text} here")
            return Call(text, self._arguments(), None)
        return self._selector(text)

    def _aggregation(self, name: str) -> Node:
        by = self._by()
        arguments = self._arguments()
        return Call(name, arguments, by or self._by())

    def _by(self) -> tuple[str, ...]:
        if not self._is("by"):
            return ()
        self._next()
        self.expect("(")
        names = []
        while not self._is(")"):
            names.append(self._next()[1])
            if self._is(","):
                self._next()
        self._next()
        return tuple(names)

    def _arguments(self) -> tuple[Node, ...]:
        self.expect("(")
        found = []
        while not self._is(")"):
            found.append(self.expression(0))
            if self._is(","):
                self._next()
        self._next()
        return tuple(found)

    def _selector(self, name: str) -> Selector:
        matchers, range_s = [], 0.0
        if self._is("{"):
            self._next()
            while not self._is("}"):
                label, mark, value = self._next()[1], self._next()[1], self._next()[1]
                matchers.append(Matcher(label, mark, value.strip('"')))
                if self._is(","):
                    self._next()
            self._next()
        if self._is("["):
            self._next()
            kind, text = self._next()
            if kind == "duration":
                range_s = seconds(text)
            elif text.startswith("$"):
                range_s = 300.0  # a dashboard's variable
            else:
                raise ValueError(f"no duration: {text}")
            self.expect("]")
        return Selector(name, tuple(matchers), range_s)


def seconds(duration: str) -> float:
    """`5m` -> 300."""
    return float(duration[:-1]) * UNITS[duration[-1]]


def selectors(node: Node) -> Iterator[tuple[Selector, tuple[str, ...]]]:
    """Every selector in an expression with the labels that the next aggregation around it keeps."""
    yield from _selectors(node, ())


def _selectors(node: Node, by: tuple[str, ...]) -> Iterator[tuple[Selector, tuple[str, ...]]]:
    if isinstance(node, Selector):
        yield node, by
    elif isinstance(node, Call):
        for argument in node.arguments:
            yield from _selectors(argument, node.by if node.by is not None else by)
    elif isinstance(node, Binary):
        yield from _selectors(node.left, by)
        yield from _selectors(node.right, by)
