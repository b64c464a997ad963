"""When the daily run is due: slots of a cron line, in UTC, where no day has 23 or 25 hours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError


def check_cron(cron: str) -> str:
    """Return the line unchanged, or raise ValueError."""
    try:
        CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise ValueError(f"is no cron line: {error}") from None
    return cron


def latest_slot(cron: str, now: datetime) -> datetime:
    """The latest instant at or before `now` (UTC) that a line that was checked names."""
    # The search goes back from, but without, the instant that it is given.
    following = now.replace(microsecond=0) + timedelta(seconds=1)
    return next(CronSim(cron, following, reverse=True))
