"""Holds everything a run has left behind against the oracle: tables, offsets, history, topics.

The input log is read back from Kafka and folded from zero; nothing is taken from the product.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from tests.faults.audit import check_audit
from tests.faults.database_state import State, read_state
from tests.faults.kafka_log import Message, Place, TopicLog, read_topics
from tests.faults.published import check_published
from tests.oracle import KINDS, Oracle, check_history

SHOWN: Final = 12
MemberKey = tuple[str, str]


@dataclass
class Report:
    """What was held against what, and all that differs. No problems: the run was exact."""

    records: int = 0
    members: int = 0
    changes: int = 0
    dead_letters: int = 0
    lost: int = 0
    """Effects that are missing or wrong."""
    doubled: int = 0
    """Effects that are there twice, or that nothing in the input explains."""
    problems: list[str] = field(default_factory=list)

    def miss(self, problem: str) -> None:
        """Note an effect that is missing or wrong."""
        self.lost += 1
        self.problems.append(problem)

    def double(self, problem: str) -> None:
        """Note an effect too many."""
        self.doubled += 1
        self.problems.append(problem)

    def summary(self) -> str:
        """The first problems, for a failing test."""
        more = len(self.problems) - SHOWN
        shown = self.problems[:SHOWN] + ([f"... and {more} more"] if more > 0 else [])
        return "\n".join(shown) or f"{self.records} records, all exact"


Rejects = Callable[[str, bytes], bool]


async def verify(
    bootstrap: str,
    database_url: str,
    topics: Mapping[str, str],
    *,
    earlier: TopicLog | None = None,
    rejects: Rejects | None = None,
) -> Report:
    """Check a scene whose workers have stopped. `topics`: kind -> name, the outputs included.

    `earlier`: records that were read before they were truncated or deleted. `rejects` says of a
    topic's kind and a good record's value whether the test made the database refuse it.
    """
    state = await read_state(database_url)
    log = await asyncio.to_thread(read_topics, bootstrap, topics.values())
    if earlier is not None:
        log = earlier.and_later(log)
    return await asyncio.to_thread(check, state, log, topics, rejects)


def check(
    state: State, log: TopicLog, topics: Mapping[str, str], rejects: Rejects | None = None
) -> Report:
    """Compare; pure."""
    report = Report()
    inputs = {kind: topics[kind] for kind in KINDS}
    oracle, refused = fold(log, inputs, state.now, report, rejects)
    check_facts(report, oracle, state)
    check_levels(report, oracle, state)
    check_offsets(report, state, log, {topics[kind] for kind in KINDS})
    check_dead_letters(report, refused, state, log.messages[topics["dead-letter"]])
    current = {key: row["level"] for key, row in state.members.items()}
    for problem in check_history(state.history, current):
        report.miss(f"history: {problem}")
    check_published(
        report, state, log.messages[topics["level"]], log.messages[topics["change"]],
        erased=erased_keys(log, inputs["membership"]),
    )  # fmt: skip
    for problem in check_audit(state.audit, rewinds=bool(state.incidents)):
        report.double(f"offsets: {problem}")
    for name, count in state.leftovers.items():
        if count:
            report.miss(f"{count} rows are left in {name}")
    report.members, report.changes = len(state.members), len(state.history)
    return report


def fold(
    log: TopicLog,
    inputs: Mapping[str, str],
    now: datetime,
    report: Report,
    rejects: Rejects | None,
) -> tuple[Oracle, dict[Place, tuple[str, Message]]]:
    """The oracle after all input, and the records that it refuses with their codes."""
    oracle = Oracle()
    refused: dict[Place, tuple[str, Message]] = {}
    for kind, topic in inputs.items():
        for one in log.messages[topic]:
            report.records += 1
            if rejects is not None and one.value is not None and rejects(kind, one.value):
                refused[one.place] = ("rejected", one)
                continue
            code = oracle.apply(
                kind, one.key, one.value, now=now, timestamp=one.recorded_at, headers=one.headers
            )
            if code is not None:
                refused[one.place] = (code, one)
    return oracle, refused


def erased_keys(log: TopicLog, topic: str) -> set[str]:
    """The keys of all membership tombstones."""
    return {
        (one.key or b"").decode(errors="replace")
        for one in log.messages[topic]
        if one.value is None
    }


def check_facts(report: Report, oracle: Oracle, state: State) -> None:
    """Every table of facts, row by row."""
    for kind, shape in KINDS.items():
        wanted = {_key(row, shape.natural_key): row for row in oracle.facts(kind)}
        found = {_key(row, shape.natural_key): row for row in state.facts[kind]}
        for key in wanted.keys() - found.keys():
            report.miss(f"{kind} {key} is missing")
        for key in found.keys() - wanted.keys():
            report.double(f"{kind} {key} is too much")
        for key in wanted.keys() & found.keys():
            if wanted[key] != found[key]:
                report.miss(f"{kind} {key} is {_difference(found[key], wanted[key])}")
        if len(found) != len(state.facts[kind]):
            report.double(f"{kind} has rows of the same key")


def check_levels(report: Report, oracle: Oracle, state: State) -> None:
    """Every member's signals, level, rule and clocks, at the instant of the last evaluation."""
    known = set(oracle.members())
    for key in known - state.members.keys():
        if oracle.organization(key[0])["status"] != "suspended":
            report.miss(f"{key} was never evaluated")
    for key in state.members.keys() - known:
        report.double(f"{key} is nobody")
    for key in sorted(known & state.members.keys()):
        row = state.members[key]
        told = oracle.evaluate(*key, row["computed_at"])
        if told["organization_status"] == "suspended":
            continue
        scored = told["level"] is not None
        wanted: dict[str, Any] = {
            **told["signals"],
            "level": told["level"],
            "computed_level": told["level"],
            "reason": told["reason"],
            "rule": told["rule"],
            "thresholds_version": told["thresholds_version"],
            "next_change_at": told["next_change_at"],
            "next_level_change_at": told["next_level_change_at"],
            "next_level": told["next_level"],
        }
        if scored:
            counted = min(20, told["signals"]["events_attended_90d"])
            wanted["evidence"] = counted
            row = {**row, "evidence": len(row["counted_event_ids"] or ())}
        if difference := _difference(row, wanted):
            report.miss(f"{key} is {difference}")
        signals = state.signals.get(key, {})
        if difference := _difference(signals, told["signals"]):
            report.miss(f"signals of {key} are {difference}")


def check_offsets(report: Report, state: State, log: TopicLog, inputs: Iterable[str]) -> None:
    """Each partition stands at its end; none has stopped."""
    topics = set(inputs)
    for part, end in log.ends.items():
        if part[0] not in topics:
            continue
        row = state.offsets.get(part)
        stands_at = 0 if row is None else row["next_offset"]
        if stands_at != end:
            report.miss(f"{part} stands at {stands_at}, not at its end {end}")
        if row is not None and row["stopped_at"] is not None:
            report.miss(f"{part} has stopped")


def check_dead_letters(
    report: Report,
    refused: Mapping[Place, tuple[str, Message]],
    state: State,
    published: Iterable[Message],
) -> None:
    """One row per refused record with its code, and at least one message with its headers."""
    report.dead_letters = len(refused)
    for place in refused.keys() - state.dead_letters.keys():
        report.miss(f"no dead letter for {place}: {refused[place][0]}")
    for place in state.dead_letters.keys() - refused.keys():
        report.double(f"{place} is a dead letter: {state.dead_letters[place]['code']}")
    sent: dict[Place, list[Message]] = {}
    for one in published:
        headers = {name: (value or b"").decode() for name, value in one.headers[-6:]}
        place = (
            headers["__streams.errors.topic"],
            int(headers["__streams.errors.partition"]),
            int(headers["__streams.errors.offset"]),
        )
        sent.setdefault(place, []).append(one)
    for place, (code, record) in refused.items():
        row = state.dead_letters.get(place)
        if row is not None and (row["code"], row["key"], row["value"]) != (
            code, record.key, record.value,
        ):  # fmt: skip
            report.miss(f"dead letter {place} is {row['code']}, not {code}, or other bytes")
        for one in sent.get(place, []):
            expected = (record.key, record.value, record.headers)
            if (one.key, one.value, one.headers[:-6]) != expected:
                report.miss(f"the message of dead letter {place} differs from the record")
        if place not in sent:
            report.miss(f"dead letter {place} was not published")
    for place in sent.keys() - refused.keys():
        report.double(f"{place} was published as a dead letter")


def _key(row: Mapping[str, Any], names: Iterable[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The fields that differ, found value first; empty when none does."""
    return ", ".join(
        f"{name} {_plain(found.get(name))} instead of {_plain(value)}"
        for name, value in wanted.items()
        if found.get(name) != value
    )


def _plain(value: object) -> object:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
