"""Two records of every kind, for the documents: what a producer sends, what a consumer gets.

What comes out is not written by hand: the rules and the encoder of this release make it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from service.classifier.templates import MODEL_VERSION, rules_texts
from service.evaluation import evaluate
from service.events import InputKind
from service.levels import Level
from service.messages import Message, Subject, message_of
from service.records import Cause, Source
from service.signals import Activity, Dates, JoinedAtSource
from service.standing import (
    NO_SIGNALS,
    NOTHING_PUBLISHED,
    Judgement,
    Standing,
    StoredOverride,
    settle,
)
from service.thresholds import DEFAULT_THRESHOLDS
from service.timeline import Case, Override

Body = dict[str, Any]

_MEMBER: Final = {"org_id": "riverside-chess", "user_id": "ada"}
_AT_THE_OPEN: Final = {**_MEMBER, "event_id": "spring-open"}

INPUT_EXAMPLES: Final[dict[InputKind, tuple[Body, Body]]] = {
    InputKind.ATTENDANCE: (
        {
            "id": "att-1001",
            **_AT_THE_OPEN,
            "status": "attended",
            "occurred_at": "2026-03-04T18:30:00Z",
            "recorded_at": "2026-03-04T21:00:00Z",
        },
        {  # takes the first one back
            "id": "att-1002",
            **_AT_THE_OPEN,
            "status": "absent",
            "occurred_at": "2026-03-04T18:30:00Z",
            "recorded_at": "2026-03-05T10:15:00+01:00",
        },
    ),
    InputKind.RSVP: (
        {
            "id": "rsvp-2001",
            **_AT_THE_OPEN,
            "response": "going",
            "responded_at": "2026-02-20T08:00:00Z",
            "recorded_at": "2026-02-20T08:00:01.250Z",
        },
        {
            "id": "rsvp-2002",
            **_AT_THE_OPEN,
            "response": "withdrawn",
            "responded_at": "2026-03-01T12:00:00Z",
            "recorded_at": "2026-03-01T12:00:00.400Z",
        },
    ),
    InputKind.PROFILE_UPDATE: (
        {
            "id": "profile-3001",
            "user_id": "ada",
            "updated_at": "2026-02-11T17:45:00Z",
            "recorded_at": "2026-02-11T17:45:00Z",
        },
        {  # kept, but no sign of engagement
            "id": "profile-3002",
            "user_id": "ada",
            "updated_at": "2026-02-12T03:00:00Z",
            "actor": "system",
            "recorded_at": "2026-02-12T03:00:00Z",
        },
    ),
    InputKind.MEMBERSHIP: (
        {
            "id": "membership-4001",
            **_MEMBER,
            "status": "active",
            "role": "admin",
            "display_name": "Ada",
            "joined_at": "2025-11-10T09:00:00Z",
            "recorded_at": "2025-11-10T09:00:02Z",
        },
        {
            "id": "membership-4002",
            **_MEMBER,
            "status": "left",
            "joined_at": "2025-11-10T09:00:00Z",
            "recorded_at": "2026-08-31T22:00:00Z",
        },
    ),
    InputKind.ORGANIZATION: (
        {
            "id": "organization-5001",
            "org_id": "riverside-chess",
            "name": "Riverside Chess Club",
            "status": "active",
            "recorded_at": "2025-11-01T09:00:00Z",
        },
        {
            "id": "organization-5002",
            "org_id": "riverside-chess",
            "name": "Riverside Chess Club",
            "status": "suspended",
            "recorded_at": "2026-09-01T09:00:00Z",
        },
    ),
}

_JOINED_AT: Final = datetime(2025, 11, 10, 9, tzinfo=UTC)
_ATTENDED_AT: Final = datetime(2026, 3, 4, 18, 30, tzinfo=UTC)
_ANSWERED_AT: Final = datetime(2026, 2, 20, 8, tzinfo=UTC)
_UPDATED_AT: Final = datetime(2026, 2, 11, 17, 45, tzinfo=UTC)
_COMPUTED_AT: Final = datetime(2026, 3, 4, 21, 0, 0, 180_000, tzinfo=UTC)


def level_examples() -> list[Body]:
    """A member by the rules, and the same member under an override."""
    return [json.loads(message.level_body or b"null") for message in _messages()]


def change_examples() -> list[Body]:
    """The changes that go with `level_examples`."""
    return [json.loads(message.change_body or b"null") for message in _messages()]


def _messages() -> tuple[Message, Message]:
    """Ada attends, and a day later an administrator sets her level."""
    activity = Activity(
        Dates((_ATTENDED_AT,)),
        Dates((_ANSWERED_AT,)),
        Dates((_UPDATED_AT,)),
        _JOINED_AT,
        JoinedAtSource.MEMBERSHIP,
    )
    case = Case(activity, DEFAULT_THRESHOLDS, eligible=True)
    new_until = _JOINED_AT + DEFAULT_THRESHOLDS.new_for
    joined = NO_SIGNALS._replace(joined_at=_JOINED_AT, joined_at_source=JoinedAtSource.MEMBERSHIP)
    lapsed = NOTHING_PUBLISHED._replace(level=Level.AT_RISK, level_since=new_until, signals=joined)
    standing, scored = _publish(case, Standing(2, new_until, lapsed), _COMPUTED_AT, None)
    overridden_at = _COMPUTED_AT + timedelta(hours=14)
    override = Override(Level.HIGHLY_ENGAGED, overridden_at, datetime(2026, 6, 1, tzinfo=UTC))
    standing = standing._replace(stored_override=StoredOverride(override, "ada", ""))
    case = case._replace(override=override)
    _, overridden = _publish(case, standing, overridden_at, Cause.OVERRIDE_SET)
    return scored, overridden


def _publish(
    case: Case, before: Standing, as_of: datetime, forced_cause: Cause | None
) -> tuple[Standing, Message]:
    evaluation = evaluate(case, as_of)
    assert evaluation.ruling is not None
    texts = rules_texts(evaluation)
    outcome = settle(
        before,
        case,
        evaluation,
        Judgement(evaluation.ruling.level, texts, Source.RULES, MODEL_VERSION),
        causes={Cause.SIGNALS},
        has_membership=True,
        forced_cause=forced_cause,
    )
    (publication,) = outcome.publications
    subject = Subject(_MEMBER["org_id"], _MEMBER["user_id"], "Riverside Chess Club")
    message = message_of(subject, publication, case.thresholds, as_of)
    return outcome.standing, message
