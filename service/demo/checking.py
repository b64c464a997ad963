"""`demo --check`: everything published, held against an independent reading of the input topics.

The oracle of the tests folds the whole input log in plain Python; it shares no code with the
service. Levels change with the hour, so whatever differs is looked at again before it counts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from db import checkup, dead_letter_log, offsets
from db.dead_letter_log import Choice, StoredDeadLetter
from db.pool import Pool, acquired
from service.demo.watching import wait_until_settled
from service.errors import NotReady
from service.settings import Settings
from streams.tailing import Record, reading
from streams.topics import input_topics

ATTEMPTS: Final = 3
SETTLE_TIMEOUT_S: Final = 60.0
MEMBERS_A_PAGE: Final = 10_000
LETTERS_A_PAGE: Final = 1_000

Member = tuple[str, str]
At = tuple[str, int, int]

# Fields of the level record that the rules and facts alone decide.
_FIELDS: Final = (
    *("level", "computed_level", "reason", "thresholds_version"),
    *("next_change_at", "next_level_change_at", "next_level"),
)


@dataclass
class Report:
    """What the check found. `problems` says each difference in words."""

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, text: str, problems: list[str]) -> None:
        """One thing that was compared."""
        self.lines.append(f"{text}: {len(problems)} differ")
        self.problems += problems


async def check(settings: Settings, pool: Pool, say: Callable[[str], None]) -> Report:
    """Compare levels, history, dead letters and signals; all input must have been sent.

    Raises Retryable when things do not settle, NotReady without the project's tests.
    """
    oracle = _oracle(settings)
    say("reading the input topics into the oracle")
    records, codes = 0, {}
    async for record in _everything(settings, list(input_topics(settings))):
        records += 1
        if (code := _fold(settings, oracle, record)) is not None:
            codes[record.topic, record.partition, record.offset] = code
    report = Report()
    say(f"{records} records folded; comparing")
    levels, differing = await _compare_levels(settings, pool, oracle)
    counts = Counter(body["level"] for body in levels.values())
    listed = ", ".join(f"{level} {count}" for level, count in counts.most_common())
    report.lines.append(f"{records} input records, {len(oracle.members())} members known")
    report.add(f"{len(levels)} published levels ({listed})", differing)
    report.add(*await _compare_history(settings, levels))
    report.add(*await _compare_dead_letters(settings, pool, codes))
    report.add(*await _rebuild(pool))
    return report


def _oracle(settings: Settings) -> Any:
    try:
        from tests.oracle import Oracle
    except ModuleNotFoundError:
        raise NotReady("--check needs the project's own checkout, which has the oracle") from None
    return Oracle(
        implicit_membership=settings.implicit_membership,
        max_future_skew_s=settings.max_future_skew_s,
    )


def _fold(settings: Settings, oracle: Any, record: Record) -> str | None:
    """The code of the record's dead letter, or None."""
    kind = input_topics(settings)[record.topic].value
    code: str | None = oracle.apply(
        kind,
        record.key,
        record.value,
        # Good records lie within the allowed skew and spoilt ones centuries ahead, so when exactly
        # the service looked at them makes no difference.
        now=record.timestamp,
        timestamp=record.timestamp,
        headers=record.headers,
    )
    return code


async def _everything(settings: Settings, topics: list[str]) -> AsyncIterator[Record]:
    async with reading(settings, topics, from_beginning=True) as reader:
        async for record in reader.until_end():
            yield record


async def _compare_levels(
    settings: Settings, pool: Pool, oracle: Any
) -> tuple[dict[Member, dict[str, Any]], list[str]]:
    """The last level record of each member who has a level, and what differs from the oracle."""
    for _ in range(ATTEMPTS):
        await wait_until_settled(settings, pool, SETTLE_TIMEOUT_S)
        async with acquired(pool) as connection:
            as_of = await offsets.read_now(connection)
        published: dict[Member, dict[str, Any]] = {}
        async for record in _everything(settings, [settings.topic_level]):
            member = _member(record)
            if record.value is None:
                published.pop(member, None)
            else:
                published[member] = json.loads(record.value)
        differing = _differences(oracle.evaluate_all(as_of), published)
        if not differing:
            break
    return published, differing


def _differences(
    expected: dict[Member, dict[str, Any]], published: dict[Member, dict[str, Any]]
) -> list[str]:
    found = [
        f"{':'.join(member)}: published, but unknown" for member in published.keys() - expected
    ]
    for member, wanted in expected.items():
        body = published.get(member)
        if wanted["level"] is None or body is None:
            if wanted["level"] is not None or body is not None:
                shown = body and body["level"]
                found.append(f"{':'.join(member)}: level {shown}, should be {wanted['level']}")
            continue
        pairs = [(name, _parsed(name, body[name]), wanted[name]) for name in _FIELDS]
        pairs += [
            (name, _parsed(name, body["signals"][name]), signal)
            for name, signal in wanted["signals"].items()
        ]
        found += [
            f"{':'.join(member)}: {name} {was}, should be {should_be}"
            for name, was, should_be in pairs
            if was != should_be
        ]
    return found


async def _compare_history(
    settings: Settings, levels: dict[Member, dict[str, Any]]
) -> tuple[str, list[str]]:
    from tests.oracle import check_history

    changes: dict[str, dict[str, Any]] = {}
    async for record in _everything(settings, [settings.topic_change]):
        body = json.loads(record.value or b"{}")
        # At least once: a repeat has the same id.
        changes[body["id"]] = body | {"effective_at": _parsed("effective_at", body["effective_at"])}
    current = {member: body["level"] for member, body in levels.items()}
    problems = check_history(changes.values(), current)
    return f"{len(changes)} changes, one unbroken chain per member", problems


async def _compare_dead_letters(
    settings: Settings, pool: Pool, expected: dict[At, str]
) -> tuple[str, list[str]]:
    """The table has each once, with its code; the topic has all but those erased before."""
    published = set()
    async for record in _everything(settings, [settings.topic_dead_letter]):
        headers = {name: (value or b"").decode() for name, value in record.headers}
        numbers = (int(headers[f"__streams.errors.{name}"]) for name in ("partition", "offset"))
        published.add((headers["__streams.errors.topic"], *numbers))
    found: dict[At, str] = {}
    missing = []
    async for stored in _dead_letters(pool):
        at = stored.letter[:3]
        found[at] = stored.letter.code
        if stored.erased_at is None and at not in published:
            missing.append(f"{at}: not published")
    differing = [
        f"{at}: {found.get(at)}, should be {expected.get(at)}"
        for at in sorted(found.keys() | expected.keys())
        if found.get(at) != expected.get(at)
    ]
    counts = ", ".join(f"{code} {n}" for code, n in Counter(found.values()).most_common())
    return f"{len(found)} dead letters ({counts})", missing + differing


async def _dead_letters(pool: Pool) -> AsyncIterator[StoredDeadLetter]:
    last = None
    async with acquired(pool) as connection:
        while page := await dead_letter_log.in_order(connection, Choice(), LETTERS_A_PAGE, last):
            for last in page:
                yield last


async def _rebuild(pool: Pool) -> tuple[str, list[str]]:
    members = last = 0
    problems: list[str] = []
    async with acquired(pool) as connection:
        while page := await checkup.rebuild_signals(connection, last, MEMBERS_A_PAGE):
            last, members = page.last_member_id, members + page.members
            problems += [f"{d.org_id}:{d.user_id}: signals {d.signals}" for d in page.differences]
    return f"{members} rows of signals, rebuilt from the facts", problems


def _member(record: Record) -> Member:
    org_id, _, user_id = (record.key or b"").decode().partition(":")
    return org_id, user_id


def _parsed(name: str, value: Any) -> Any:
    return datetime.fromisoformat(value) if name.endswith("_at") and value is not None else value
