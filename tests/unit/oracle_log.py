"""Short ways to tell the oracle about one member, and to ask."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.oracle import Oracle

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ORG, USER = "club", "ada"
OTHER_FIELDS = {
    "attendance": {"event_id": "e1", "status": "attended"},
    "rsvp": {"event_id": "e1", "response": "going"},
    "profile-update": {},
    "membership": {"status": "active"},
    "organization": {"status": "active", "name": "The Club"},
}
TIME_FIELDS = {
    "attendance": "occurred_at",
    "rsvp": "responded_at",
    "profile-update": "updated_at",
    "membership": "joined_at",
}


def days(number: float) -> timedelta:
    return timedelta(days=number)


def put(oracle: Oracle, kind: str, at: datetime, **fields: Any) -> None:
    """Apply one good record about ADA; it was recorded when it happened unless told."""
    body: dict[str, Any] = {"id": "m1", "org_id": ORG, "user_id": USER} | OTHER_FIELDS[kind]
    body["recorded_at"] = at
    if kind in TIME_FIELDS:
        body[TIME_FIELDS[kind]] = at
    body |= fields
    value = json.dumps(body, default=datetime.isoformat).encode()
    assert oracle.apply(kind, None, value, now=NOW) is None


def attend(oracle: Oracle, *instants: datetime) -> None:
    for number, instant in enumerate(instants):
        put(oracle, "attendance", instant, event_id=f"attended-{number}")


def level_of(oracle: Oracle, as_of: datetime = NOW) -> str | None:
    return oracle.evaluate(ORG, USER, as_of)["level"]


def rule_of(oracle: Oracle, as_of: datetime = NOW) -> tuple[int | None, str | None, str | None]:
    found = oracle.evaluate(ORG, USER, as_of)
    return found["rule"], found["level"], found["reason"]


def erase(oracle: Oracle, at: datetime, key: bytes = b"club:ada") -> str | None:
    return oracle.apply("membership", key, None, timestamp=at, now=NOW)


def clock_of(oracle: Oracle, as_of: datetime = NOW, *, with_override: bool = False) -> Any:
    found = oracle.evaluate(ORG, USER, as_of, with_override=with_override)
    return found["next_change_at"], found["next_level_change_at"], found["next_level"]
