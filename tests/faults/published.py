"""The two engagement topics against the tables: all there, in order, repeats the same."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import NAMESPACE_URL, uuid5

from tests.faults.database_state import State
from tests.faults.kafka_log import Message, header_of

ERASED: Final = "erased-"
"""Stands before the random token that an erased person's history is under."""
CHANGE_FIELDS: Final = (
    "org_id", "user_id", "from_level", "to_level", "cause", "reason", "effective_at",
    "recorded_at", "revision", "computed_level", "source",
)  # fmt: skip
LEVEL_FIELDS: Final = (
    "org_id", "user_id", "level", "computed_level", "previous_level", "level_since", "reason",
    "source", "thresholds_version", "activity_window_days", "next_change_at",
    "next_level_change_at", "next_level", "model_version", "revision",
)  # fmt: skip
SIGNALS: Final = (
    "events_attended_90d", "last_attended_at", "rsvp_count_90d", "last_rsvp_at",
    "profile_updated_at", "joined_at", "joined_at_source",
)  # fmt: skip
OVERRIDE: Final = {
    "level": "override_level",
    "overridden_at": "overridden_at",
    "expires_at": "override_expires_at",
}


class Findings(Protocol):
    """Where problems go."""

    def miss(self, problem: str) -> None:
        """Something is missing or wrong."""

    def double(self, problem: str) -> None:
        """Something is too much."""


def check_published(
    report: Findings,
    state: State,
    levels: Iterable[Message],
    changes: Iterable[Message],
    erased: Collection[str] = (),
) -> None:
    """Both topics. `erased`: keys of members who were erased at some time."""
    _check_changes(report, state, changes, erased)
    by_key: dict[str, list[Message]] = defaultdict(list)
    for one in levels:
        by_key[(one.key or b"").decode()].append(one)
    for (org_id, user_id), row in state.members.items():
        key = f"{org_id}:{user_id}"
        _check_levels(report, key, row, by_key.pop(key, []))
    for key, sent in by_key.items():
        if key not in erased:
            report.double(f"level records of {key}, who is nobody")
        elif sent[-1].value is not None:
            report.miss(f"{key} was erased, but the last level record is no tombstone")


def _check_changes(
    report: Findings, state: State, changes: Iterable[Message], erased: Collection[str]
) -> None:
    """Each history row is on the topic with its id; repeats are the same bytes; nothing else is."""
    sent: dict[str, list[Message]] = defaultdict(list)
    for one in changes:
        sent[header_of(one, "ce_id") or ""].append(one)
    nameless: Counter[tuple[Any, ...]] = Counter()
    for row in state.history:
        if row["user_id"].startswith(ERASED):
            nameless[_what(row)] += 1
        else:
            _check_change(report, row, sent.pop(str(row["id"]), []))
    for identity, found in sent.items():
        what = _what(_parsed(found[0].value))
        if (found[0].key or b"").decode() in erased and nameless[what]:
            nameless[what] -= 1
        else:
            report.double(f"change {identity} of {found[0].key!r} is not in the history")
    for what, count in nameless.items():
        if count:
            report.miss(f"{count} changes of the erased were not published: {what}")


def _check_change(report: Findings, row: Mapping[str, Any], found: list[Message]) -> None:
    """One history row and the messages that have its id."""
    name = f"{row['org_id']}:{row['user_id']}/{row['revision']}"
    identity = uuid5(NAMESPACE_URL, f"engagement.change.v1/{name}")
    if row["id"] != identity:
        report.miss(f"change {name} has id {row['id']}")
    if not found:
        report.miss(f"change {name} was not published")
        return
    if any(one.value != found[0].value for one in found):
        report.double(f"change {name} was published with different bodies")
    body = _parsed(found[0].value)
    wrong = [field for field in CHANGE_FIELDS if body.get(field) != row[field]]
    if wrong or body.get("id") != str(identity):
        report.miss(f"change {name} was published with other {wrong}")


def _what(change: Mapping[str, Any]) -> tuple[Any, ...]:
    """All that is left of an erased member's change."""
    return tuple(change[name] for name in CHANGE_FIELDS if name != "user_id")


def _check_levels(report: Findings, key: str, row: Mapping[str, Any], sent: list[Message]) -> None:
    """Each revision was published, first times in order; the last record is the table's."""
    numbers = {
        str(uuid5(NAMESPACE_URL, f"engagement.level.v1/{key}/{number}")): number
        for number in range(1, row["revision"] + 1)
    }
    bodies: dict[int, bytes | None] = {}
    for one in sent:
        number = numbers.get(header_of(one, "ce_id") or "")
        if number is None:
            report.double(f"a level record of {key} has an id of no revision")
        elif number in bodies:
            if bodies[number] != one.value:
                report.double(f"level {key}/{number} was published with different bodies")
        else:
            if number != len(bodies) + 1:
                report.miss(f"level {key}/{number} was published out of order")
            bodies[number] = one.value
    if len(bodies) != row["revision"]:
        report.miss(f"{key} has {row['revision']} revisions, published were {sorted(bodies)}")
    if sent and numbers.get(header_of(sent[-1], "ce_id") or "") == row["revision"]:
        _check_last(report, key, row, sent[-1].value)
    elif sent:
        report.miss(f"the last level record of {key} is not revision {row['revision']}")


def _check_last(report: Findings, key: str, row: Mapping[str, Any], value: bytes | None) -> None:
    if value is None or row["level"] is None:
        if value is not None or row["level"] is not None:
            report.miss(f"{key} is {row['level']}, the last level record is {value!r}")
        return
    body = _parsed(value)
    wrong = [field for field in LEVEL_FIELDS if body.get(field) != row[field]]
    signals = {name: _instant(part) for name, part in body["signals"].items()}
    wrong += [field for field in SIGNALS if signals.get(field) != row[field]]
    override = None
    if row["override_level"] is not None:
        override = {name: row[column] for name, column in OVERRIDE.items()}
    given = body.get("override")
    if given is not None:
        given = {name: _instant(part) for name, part in given.items()}
    if given != override:
        wrong.append("override")
    for field in ("admin_explanation", "user_explanation"):
        if not body.get(field) or "{" in body[field]:
            wrong.append(field)
    if wrong:
        report.miss(f"the last level record of {key} has other {wrong}")


def _parsed(value: bytes | None) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(value or b"{}")
    return {name: _instant(part) for name, part in body.items()}


def _instant(part: Any) -> Any:
    """Times as such; every other value unchanged."""
    if isinstance(part, str) and part.endswith("Z") and part[:4].isdigit():
        return datetime.fromisoformat(part)
    return part
