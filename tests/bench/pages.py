"""docs/performance.md and docs/capacity.md, made of nothing but what benchmarks have written.

`./run bench NAME --write-docs` keeps the run's record in docs/performance/NAME.json and writes both
pages anew, so that they never say what no run has shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.bench import capacity
from tests.bench.ground.markdown import markdown_table

DOCS: Final = Path(__file__).parents[2] / "docs"
ORDER: Final = (
    "ingest", "latency", "evaluate", "growth", "memory", "scale", "start",
    "recompute", "claude", "api", "soak",
)  # fmt: skip

Record = Mapping[str, Any]


class Bar(NamedTuple):
    """What a metric has to be: at least, or at most."""

    metric: str
    at_least: float | None
    at_most: float | None
    says: str


BARS: Final = (
    Bar("ingest.vs_plain_faust", 20, None, "times a plain Faust agent"),
    Bar("ingest.vs_quix", 4, None, "times Quix Streams' PostgreSQL sink"),
    Bar("ingest.vs_best_python", 2, None, "times the best of the Python peers"),
    Bar("ingest.vs_limit", 0.7, None, "of the limit of the parts"),
    Bar("ingest.e2e_vs_limit", 0.5, None, "of that limit, to the last level record"),
    Bar("latency.p50_ms", None, 100, "ms from record to change at 1 000 records/s, median"),
    Bar("latency.p99_ms", None, 500, "ms, 99 of 100"),
    Bar("growth.rate_10m_vs_100k", 0.8, None, "of the rate at 100 times fewer facts"),
    Bar("memory.peak_mb", None, 250, "MB resident at most, 3 million records"),
    Bar("scale.cpu_per_record_4w_vs_1w", None, 1.15, "times the CPU time with four workers"),
    Bar("start.help_s", None, 0.3, "s for `engagement --help`"),
    Bar("start.consuming_s", None, 5, "s until a new worker has committed a batch"),
    Bar("recompute.vs_floor", None, 4, "times one bare statement, everything changing"),
    Bar("recompute.quiet_vs_floor", None, 1, "times that statement, nothing changing"),
    Bar("claude.calls_vs_plain", None, 0.01, "of the calls that one for each member and day takes"),
    Bar("claude.without_texts", None, 0, "members without a text, on any day"),
    Bar("claude.hurtful_texts", None, 0, "texts for members with a hurtful word"),
    Bar("api.list_p50_ms", None, 200, "ms for a page of 100 000 members, median"),
    Bar("api.list_p99_ms", None, 500, "ms, 99 of 100"),
    Bar("api.overview_p50_ms", None, 200, "ms for the overview of that organisation, median"),
    Bar("api.overview_p99_ms", None, 500, "ms, 99 of 100"),
    Bar("soak.rss_slope_mb_h", None, 1, "MB an hour of growth after warm-up"),
)

INTRODUCTION: Final = """\
# Performance

Written by the benchmarks themselves (`./run bench NAME --write-docs`); the records behind this page
are in [performance/](performance/). Ratios last, absolute figures are those of the machine: compare
only what one run has measured. Everything (broker, database, workers, load) runs on one machine,
with fsync, full page writes and synchronous commit on; rates leave starting up out; contenders take
turns, and every figure is a median.
"""
SIZING: Final = "What the figures mean for sizing is in [capacity.md](capacity.md).\n"


def write(name: str, result: Record, docs: Path = DOCS) -> None:
    """Keep a run's record and write both pages anew."""
    folder = docs / "performance"
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath(f"{name}.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    records = stored(docs)
    docs.joinpath("performance.md").write_text(performance_page(records), "utf-8")
    page = capacity.page(records)
    if page is not None:
        docs.joinpath("capacity.md").write_text(page, "utf-8")


def stored(docs: Path = DOCS) -> dict[str, Record]:
    """The records that are kept, in the order of the page."""
    found = {
        path.stem: json.loads(path.read_text("utf-8"))
        for path in docs.joinpath("performance").glob("*.json")
    }
    names = [*(name for name in ORDER if name in found), *sorted(set(found) - set(ORDER))]
    return {name: found[name] for name in names}


def performance_page(records: Mapping[str, Record]) -> str:
    """The page as Markdown."""
    # That page is not there before all that it follows from has been measured.
    sizing = [SIZING] if capacity.costs(records) is not None else []
    parts = [INTRODUCTION, *sizing, _bars(records)]
    parts += [_section(name, record) for name, record in records.items()]
    return "\n".join(parts)


def _bars(records: Mapping[str, Record]) -> str:
    metrics = {
        metric: value for record in records.values() for metric, value in record["metrics"].items()
    }
    rows = []
    for bar in BARS:
        if bar.metric not in metrics:
            continue
        value = metrics[bar.metric]
        wanted = (
            f"at least {bar.at_least:g}"
            if bar.at_least is not None
            else (f"at most {bar.at_most:g}")
        )
        rows.append([f"`{bar.metric}`", f"{value:,g}", wanted, "yes" if holds(bar, value) else "NO",
                     bar.says])  # fmt: skip
    columns = ("metric", "measured", "wanted", "holds", "what it is")
    return "## What has to hold\n\n" + markdown_table(columns, rows)


def holds(bar: Bar, value: float) -> bool:
    """Whether a value is what it has to be."""
    return (bar.at_least is None or value >= bar.at_least) and (
        bar.at_most is None or value <= bar.at_most
    )


def _section(name: str, record: Record) -> str:
    machine, versions = record["machine"], record["versions"]
    lines = [
        f"## {name}",
        "",
        f"{record['date'][:10]}; {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gb']:g} GB, {machine['system']}; "
        + ", ".join(f"{package} {version}" for package, version in versions.items())
        + ".",
        "",
    ]
    for table in record.get("tables", ()):
        lines += [f"**{table['title']}**", "", markdown_table(table["columns"], table["rows"])]
        lines += [line for note in table.get("notes", ()) for line in (note, "")]
    lines += [markdown_table(("metric", "value"), [
        [f"`{metric}`", f"{value:,g}"] for metric, value in record["metrics"].items()
    ])]  # fmt: skip
    return "\n".join(lines)
