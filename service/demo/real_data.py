"""Real attendance that comes with the project, as records; see data/README.md for its origin."""

import csv
import gzip
import io
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from service.demo.input_record import InputRecord, key_of, value_of
from service.instants import wire_time

DATA = Path(__file__).parent / "data"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "engagement-scoring/real-data")


def southern_women() -> Iterator[InputRecord]:
    """Eighteen women at fourteen social events of 1936, one organisation, dates as they were."""
    for row in _rows(DATA / "davis_southern_women.csv"):
        yield _attendance(row)


def contribution_days(now: datetime) -> Iterator[InputRecord]:
    """Days of contribution to three projects, each project's last day being the UTC day of `now`.

    A project's days are all shifted by the same number of days. They stay at noon, so that before
    noon the last one still lies ahead.
    """
    today = now.astimezone(UTC).date()
    for path in sorted(DATA.glob("contribution_days_*.csv.gz")):
        rows = _rows(path)
        last = max(datetime.fromisoformat(row["occurred_at"]).date() for row in rows)
        for row in rows:
            yield _attendance(_shifted(row, today - last))


def _shifted(row: dict[str, str], by: timedelta) -> dict[str, str]:
    occurred_at = datetime.fromisoformat(row["occurred_at"]) + by
    return row | {
        "event_id": f"day.{occurred_at:%Y-%m-%d}",
        "occurred_at": wire_time(occurred_at),
    }


def _attendance(row: dict[str, str]) -> InputRecord:
    """The row as a record that was learned when it happened; its id follows from the row."""
    message_id = uuid.uuid5(_NAMESPACE, "/".join(row.values()))
    body = {"id": str(message_id), **row, "recorded_at": row["occurred_at"]}
    return InputRecord("attendance", key_of(body), value_of(body))


def _rows(path: Path) -> list[dict[str, str]]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return list(csv.DictReader(io.StringIO(text)))
