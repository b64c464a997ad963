"""The checks of `engagement doctor`: what is well, and what to do about the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from db import checkup, dead_letter_log, migrate, offsets
from db.dead_letter_log import Choice
from db.pool import Connection
from service.cli.output import instant
from service.errors import EngagementError
from service.instants import wire_time
from service.settings import Settings
from streams.tailing import Extent, extents, has_records
from streams.topics import input_topics, missing_topics, partitions_of, topics, wrong_policies

PATIENCE_S: Final = 60.0
INCIDENT_DAYS: Final = 7
DEAD_LETTER_DAYS: Final = 1
MEMBERS_A_PAGE: Final = 10_000
DIFFERENCES_SHOWN: Final = 20


class Finding(NamedTuple):
    """One thing that was looked at; `advice` says what to do when it is not well."""

    area: str
    well: bool
    text: str
    advice: str = ""


Findings = AsyncIterator[Finding]


async def check_topics(settings: Settings) -> Findings:
    """Whether they exist, with the policies that consumers rely on."""
    names = [topic.name for topic in topics(settings)]
    if missing := await missing_topics(settings):
        yield Finding("topics", False, f"missing: {', '.join(missing)}",
                      "run `engagement topics apply`")  # fmt: skip
        return
    partitions = await partitions_of(settings, names)
    counts = sorted({len(found) for found in partitions.values()})
    yield Finding("topics", True, f"{len(names)} there, {_listed(counts)} partitions each")
    wanted = {topic.name: topic.config["cleanup.policy"] for topic in topics(settings)}
    for name, policy in (await wrong_policies(settings)).items():
        yield Finding("topics", False, f"{name} has cleanup.policy={policy}",
                      f"set it to {wanted[name]} with your Kafka tools")  # fmt: skip


async def check_database(connection: Connection) -> Findings:
    """Its version and ours."""
    number, text = await checkup.server(connection)
    yield Finding("database", number >= checkup.OLDEST_SERVER, f"PostgreSQL {text}",
                  "PostgreSQL 18 or newer is needed")  # fmt: skip
    version = await migrate.require_current(connection)
    yield Finding("schema", True, f"version {version}")


async def check_offsets(settings: Settings, connection: Connection) -> Findings:
    """Whether every partition is read to its end, and none stands still."""
    found = await extents(settings, list(input_topics(settings)))
    rows = {(row["topic"], row["partition"]): row for row in await offsets.read_all(connection)}
    now, lag = await offsets.read_now(connection), 0
    for (topic, partition), extent in sorted(found.items()):
        row = rows.get((topic, partition))
        lag += extent.end - (extent.first if row is None else row["next_offset"])
        problem = await _offset_problem(settings, topic, partition, extent, row, now)
        if problem is not None:
            yield problem
    yield Finding("offsets", True, f"{len(found)} partitions, {lag} records not applied yet")


async def _offset_problem(
    settings: Settings,
    topic: str,
    partition: int,
    extent: Extent,
    row: dict[str, Any] | None,
    now: datetime,
) -> Finding | None:
    name = f"{topic}/{partition}"
    if row is None:
        text, advice = f"{name} has records, and no worker has ever read it", "start a worker"
        return Finding("offsets", False, text, advice) if extent.end > extent.first else None
    at, stopped_at, updated_at = row["next_offset"], row["stopped_at"], row["updated_at"]
    if stopped_at is not None:
        failures = row["consecutive_failures"]
        text = f"{name} stands still at {at} since {instant(stopped_at)}"
        text += f", after {failures} dead letters in a row" if failures else ""
        advice = "mend the cause, then `engagement dlq resume`"
    elif at > extent.end:
        text = f"{name} ends at {extent.end}, but we are at {at}"
        advice = "the topic was truncated or made anew: see docs/runbook.md"
    elif at < extent.first:
        text = f"{name} begins at {extent.first}, but we are at {at}"
        advice = "records were removed before they were read; a worker will note it"
    elif (
        at < extent.end
        and now - updated_at > timedelta(seconds=PATIENCE_S)
        # Marks of transactions are no records, but they count as offsets.
        and await has_records(settings, topic, partition, at)
    ):
        text = f"{name}: {extent.end - at} records wait, none applied since {instant(updated_at)}"
        advice = "is a worker running? Look at its log and /readyz"
    else:
        return None
    return Finding("offsets", False, text, advice)


async def check_waiting(connection: Connection) -> Findings:
    """Whether anything waits longer than it should."""
    waiting = await checkup.waiting(connection)
    advice = "is a worker running? Look at its log"
    for what, count, age_s in (
        ("members due by marks", waiting.marks, waiting.marks_age_s),
        ("members due by the clock", waiting.overdue, waiting.overdue_age_s),
        ("states to be published", waiting.outbox, waiting.outbox_age_s),
    ):
        age = f", the oldest for {age_s:.0f} s" if count else ""
        yield Finding("waiting", age_s <= PATIENCE_S, f"{count} {what}{age}", advice)
    age_s = (await dead_letter_log.oldest_unpublished(connection)).total_seconds()
    if age_s > PATIENCE_S:
        yield Finding("waiting", False, f"a dead letter waits to be published for {age_s:.0f} s",
                      advice)  # fmt: skip


async def check_records(connection: Connection) -> Findings:
    """Dead letters of late, which are no problem of ours, and incidents, which are."""
    since = await offsets.read_now(connection) - timedelta(days=DEAD_LETTER_DAYS)
    counts = await dead_letter_log.count(connection, Choice(since=since))
    listed = ", ".join(f"{count} {code}" for code, count in counts.items()) or "none"
    yield Finding("dead letters", True, f"in the last 24 h: {listed}")
    incidents = await checkup.incidents(connection, INCIDENT_DAYS)
    for one in incidents:
        place = f" {one.topic}/{one.partition}" if one.topic is not None else ""
        yield Finding("incidents", False, f"{instant(one.created_at)} {one.kind}{place} "
                      f"{one.details}", "see docs/runbook.md")  # fmt: skip
    if not incidents:
        yield Finding("incidents", True, f"none in {INCIDENT_DAYS} days")


async def check_signals(
    connection: Connection, looked_at: Callable[[int], None]
) -> AsyncIterator[Finding]:
    """Compare every member's signals with the facts. `looked_at`: members so far."""
    members = waits = differing = 0
    last = 0
    while (page := await checkup.rebuild_signals(connection, last, MEMBERS_A_PAGE)) is not None:
        last = page.last_member_id
        members, waits = members + page.members, waits + page.waiting
        for one in page.differences:
            differing += 1
            if differing <= DIFFERENCES_SHOWN:
                listed = ", ".join(
                    f"{name} is {_value(was)}, should be {_value(should_be)}"
                    for name, (was, should_be) in one.signals.items()
                )
                yield Finding("signals", False, f"{one.org_id}:{one.user_id} as of "
                              f"{_value(one.computed_at)}: {listed}")  # fmt: skip
        looked_at(members)
    left_out = f", {waits} left out who wait for their evaluation" if waits else ""
    yield Finding(
        "signals", not differing,
        f"{members} members rebuilt from their facts, {differing} differ{left_out}",
        "a defect: please report it; `engagement recompute --force` writes them anew",
    )  # fmt: skip


async def guarded(area: str, findings: Findings) -> Findings:
    """The findings; that something can't be looked at is one, too."""
    try:
        async for finding in findings:
            yield finding
    except EngagementError as error:
        yield Finding(area, False, " ".join(str(error).split()))


def _value(value: object) -> str:
    if value is None:
        return "unset"
    return wire_time(value) if isinstance(value, datetime) else str(value)


def _listed(numbers: list[int]) -> str:
    return " or ".join(str(number) for number in numbers)
