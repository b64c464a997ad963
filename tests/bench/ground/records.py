"""Single attendance records in the words of a producer."""

from __future__ import annotations

import uuid
from datetime import datetime

from service.demo.input_record import InputRecord
from service.instants import wire_time


def attendance(organisation: str, user: str, event: str, status: str, at: datetime) -> InputRecord:
    """One record under a new message id, learned when it happened."""
    written = wire_time(at)
    value = (
        f'{{"id":"{uuid.uuid4()}","org_id":"{organisation}","user_id":"{user}",'
        f'"event_id":"{event}","status":"{status}",'
        f'"occurred_at":"{written}","recorded_at":"{written}"}}'
    )
    return InputRecord("attendance", f"{organisation}:{user}".encode(), value.encode())
