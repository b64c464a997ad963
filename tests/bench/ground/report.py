"""What a benchmark says: lines while it runs, a table at the end, JSON for dashboards."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.ground.machine import machine, versions


def say(text: str) -> None:
    """One line about progress, on standard error."""
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


def report(
    bench: str,
    metrics: Mapping[str, float],
    *,
    more_versions: Mapping[str, str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The record of one run. `more` are further members, `tables` among them."""
    return {
        "bench": bench,
        "date": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "versions": {**versions(), **(more_versions or {})},
        "machine": machine(),
        "metrics": {name: rounded(value) for name, value in metrics.items()},
        **more,
    }


def rounded(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write the record as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> dict[str, Any]:
    """A table as a member of the record, to be shown now and in the docs."""
    return {
        "title": title,
        "columns": list(columns),
        "rows": [list(row) for row in rows],
        "notes": list(notes),
    }


def show(result: Mapping[str, Any]) -> None:
    """Print tables and metrics for people, on standard output."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    for each in result.get("tables", ()):
        console.print(_rich(each["title"], each["columns"], each["rows"]))
        for note in each["notes"]:
            console.print(note)
    metrics = [[name, f"{value:,g}"] for name, value in result["metrics"].items()]
    console.print(_rich(f"{result['bench']}: metrics", ("metric", "value"), metrics))


def _rich(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    made = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        made.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        made.add_row(*row)
    return made
