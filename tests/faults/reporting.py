"""Options of the fault tests, what they measure, and the table docs/faults.md made of it.

A pytest plugin, since faults are tried in other tiers, too: tests tell by user properties, which
also come from parallel workers. Run as a program it makes the table from logs of several runs:
`python -m tests.faults.reporting LOG...`.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any, Final, Protocol

import pytest

PAGE: Final = Path(__file__).parents[2] / "docs" / "faults.md"
PROPERTY: Final = "fault"
INTRODUCTION: Final = """\
Written by the fault suite: `./run test --nightly --seeds=3 --faults-page`, or from the logs of
several runs (`--faults-log=FILE`, then `python -m tests.faults.reporting FILE...`). What has no
line was not measured then. Real broker, real database, real worker processes; after each run the
whole input log is folded by an independent oracle, and every fact, signal, level, offset, history
row and published record is compared. *Lost*: effects that were missing or wrong. *Doubled*:
effects that were there twice, or that nothing in the input explains."""
RECOVERY: Final = """\
Recovery is the time from the end of the fault until every partition that lagged had moved again;
with a session timeout of 6 s instead of 45 s."""
FAULTS: Final = {
    1: "Worker killed before the fence, after the upserts, before and after COMMIT, between "
    "evaluation and its COMMIT, between relay's acknowledgement and delete",
    2: "All workers killed again and again, every 0.1 to 6 s",
    3: "SIGTERM under load: rolling restart of three workers",
    4: "Worker frozen inside an open transaction, its partitions taken over, thawed",
    5: "Workers join and leave every 5 s under full load, also more workers than partitions",
    6: "Broker restarted and killed; three brokers one after the other",
    7: "Consumer group lost: its offsets deleted, or another group",
    8: "PostgreSQL restarted in immediate mode, postmaster killed",
    9: "Connection cut at COMMIT, before it and after it",
    10: "Connections cut, slow (2 s; 1 KB/s), half open; to the broker, to the database",
    11: "PostgreSQL fails over to a standby; read-only errors",
    12: "Disk full (53100)",
    13: "Bad records of every kind among good ones",
    14: "Nothing but bad records after a bad deploy",
    15: "Every record delivered three times, also in other partitions, and later again",
    16: "Everything out of order",
    17: "Topic truncated beyond our offset; deleted and made anew, offsets in and out of range",
    18: "Clocks that jump; crashes around 04:00; everybody down then",
    19: "Claude: errors, hangs, refusals, nonsense, injected names",
    20: "Relay killed between acknowledgement and delete; two relays; broker down; lost sequence",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """What the fault tests can be told."""
    group = parser.getgroup("faults")
    group.addoption("--seeds", type=int, default=1, help="how many seeds each fault is tried with")
    group.addoption("--first-seed", type=int, default=1, help="the first of them")
    group.addoption("--faults-log", type=Path, help="=FILE: append what is measured, as JSON lines")
    group.addoption("--faults-page", action="store_true", help=f"write {PAGE.name} at the end")


class Noted(Protocol):
    """Notes a line for docs/faults.md."""

    def __call__(
        self, fault: int, *, records: int, lost: int, doubled: int, recovery_s: float | None = None
    ) -> None:
        """What one run of a fault came to, under a load of about so many records.

        `lost` are effects that are missing or wrong, `doubled` those that are there twice.
        """


@pytest.fixture
def noted(record_property: Callable[[str, object], None]) -> Noted:
    """`noted(fault, records=..., lost=..., doubled=...)`; counts if the test passes."""

    def note(
        fault: int, *, records: int, lost: int, doubled: int, recovery_s: float | None = None
    ) -> None:
        line = {"fault": fault, "records": records, "recovery_s": recovery_s,
                "lost": lost, "doubled": doubled}  # fmt: skip
        record_property(PROPERTY, line)

    return note


class Collector:
    """Gathers what tests tell, in the process that reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.log: Path | None = config.getoption("--faults-log")
        self.writes_page: bool = config.getoption("--faults-page")
        self.runs: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """After each part of a test."""
        if report.when == "call" and report.passed:
            for name, value in report.user_properties:
                if name == PROPERTY and isinstance(value, dict):
                    self._keep(value)

    def pytest_sessionfinish(self) -> None:
        """Write the page."""
        if self.writes_page and self.runs:
            PAGE.write_text(page(self.runs), encoding="utf-8")

    def _keep(self, run: dict[str, Any]) -> None:
        """Log it at once: all faults at full load take hours, and somebody may end them early."""
        self.runs.append(run)
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as log:
                log.write(json.dumps(run) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    """Gather where the reports arrive."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Collector(config))


def page(runs: Iterable[dict[str, Any]]) -> str:
    """The table as Markdown."""
    by_fault: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        by_fault[run["fault"], run["records"]].append(run)
    lines = [
        "# Faults and how the service comes through",
        "",
        INTRODUCTION,
        "",
        RECOVERY,
        "",
        "| # | fault | records | runs | recovery, median | worst | lost | doubled |",
        "| --: | --- | --: | --: | --: | --: | --: | --: |",
    ]
    for (fault, records), found in sorted(by_fault.items()):
        times = [run["recovery_s"] for run in found if run["recovery_s"] is not None]
        middle = f"{median(times):.1f} s" if times else "-"
        worst = f"{max(times):.1f} s" if times else "-"
        lost, doubled = (sum(run[name] for run in found) for name in ("lost", "doubled"))
        lines.append(
            f"| {fault} | {FAULTS[fault]} | {records} | {len(found)} | {middle} | {worst} "
            f"| {lost} | {doubled} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Logs of several runs to one table."""
    lines = [line for name in sys.argv[1:] for line in Path(name).read_text().splitlines()]
    runs = [json.loads(line) for line in lines]
    PAGE.write_text(page(runs), encoding="utf-8")


if __name__ == "__main__":
    main()
