"""Single records of attendance, for scenes in which it matters who comes when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from service.demo.input_record import InputRecord, key_of, value_of


def attended(
    user_id: str, event_id: str, days_ago: float = 1, *, status: str = "attended"
) -> InputRecord:
    """Somebody attended an event of the organisation `club`; recorded an hour after it."""
    ids = {"org_id": "club", "user_id": user_id}
    occurred_at = datetime.now(UTC) - timedelta(days=days_ago)
    body = {
        "id": f"{user_id}-{event_id}-{status}",
        **ids,
        "event_id": event_id,
        "status": status,
        "occurred_at": occurred_at.isoformat(),
        "recorded_at": (occurred_at + timedelta(hours=1)).isoformat(),
    }
    return InputRecord("attendance", key_of(ids), value_of(body))
