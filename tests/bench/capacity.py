"""docs/capacity.md: how much of everything is needed, from what benchmarks have measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.bench.ground.backlog import RECORDS_PER_MEMBER
from tests.bench.ground.markdown import markdown_table

RATES: Final = (100, 10_000, 1_000_000)
MEMBERS: Final = (1_000, 100_000, 10_000_000)
# Half of a core is left for peaks, catching up and what else runs there.
USE: Final = 0.5
FACTS_PER_MEMBER: Final = 50
PARTITIONS_PER_WORKER: Final = 4
TEMPLATE: Final = Path(__file__).with_name("capacity.md.in")
NEEDED: Final = ("scale", "growth", "memory", "evaluate")


class Cost(NamedTuple):
    """What one record takes: CPU microseconds of each side, bytes of write-ahead log."""

    worker_us: float
    broker_us: float
    database_us: float
    wal_bytes: float

    def plus(self, other: Cost, share: float) -> Cost:
        """This and so much of another."""
        return Cost(*(mine + share * theirs for mine, theirs in zip(self, other, strict=True)))


class Costs(NamedTuple):
    """What the benchmarks have measured: CPU microseconds and bytes.

    `backlog`: a record of a backlog, where one evaluation serves `RECORDS_PER_MEMBER`. `steady`:
    one that changes what is published about a member of its own, as in a stream without a backlog.
    """

    backlog: Cost
    steady: Cost
    fact_bytes: float
    member_bytes: float
    evaluate_worker_us: float
    evaluate_database_us: float
    worker_mb: float


def costs(records: Mapping[str, Any]) -> Costs | None:
    """The costs, or None until all that they follow from has been measured."""
    if any(name not in records for name in NEEDED):
        return None
    metrics = {key: value for name in NEEDED for key, value in records[name]["metrics"].items()}
    backlog = Cost(
        metrics["scale.worker_cpu_s_per_million_1w"],
        metrics["scale.broker_cpu_s_per_million_1w"],
        metrics["scale.database_cpu_s_per_million_1w"],
        metrics["scale.wal_bytes_per_record"],
    )
    published = Cost(
        metrics["evaluate.first_worker_cpu_us"],
        metrics["evaluate.first_broker_cpu_us"],
        metrics["evaluate.first_database_cpu_us"],
        metrics["evaluate.first_wal_bytes"],
    )
    return Costs(
        backlog,
        backlog.plus(published, 1 - 1 / RECORDS_PER_MEMBER),
        metrics["growth.bytes_per_fact"],
        metrics["growth.bytes_per_member"],
        metrics["evaluate.again_worker_cpu_us"],
        metrics["evaluate.again_database_cpu_us"],
        metrics["memory.peak_mb"],
    )


def page(records: Mapping[str, Any]) -> str | None:
    """The page as Markdown, or None while figures are missing."""
    found = costs(records)
    if found is None:
        return None
    one_worker = 1e6 / found.steady.worker_us
    text = TEMPLATE.read_text("utf-8")
    values = {
        "costs": _cost_table(found),
        "rates": _rate_table(found),
        "members": _member_table(found),
        "one_worker": _round(one_worker * USE),
        "worker_limit": _round(one_worker),
        "backlog_limit": _round(1e6 / found.backlog.worker_us),
        "records_per_member": str(RECORDS_PER_MEMBER),
        "use": f"{USE:.0%}",
        "facts_per_member": str(FACTS_PER_MEMBER),
        "database_limit": _round(_database_limit(found)),
        "worker_mb": f"{found.worker_mb:,.0f}",
    }
    for name, value in values.items():
        text = text.replace(f"<<{name}>>", value)
    return text


def workers_for(rate: float, found: Costs) -> int:
    """Worker processes for so many records/s, each a core at the chosen use; two at the least."""
    return max(2, math.ceil(rate * found.steady.worker_us / 1e6 / USE))


def partitions_for(workers: int) -> int:
    """Partitions per input topic: several per worker, a power of two, 8 at the least."""
    return int(max(8, 2 ** math.ceil(math.log2(workers * PARTITIONS_PER_WORKER))))


def _database_limit(found: Costs) -> float:
    """Records/s at which 32 cores are in use as chosen, or 300 MB/s of WAL, whichever is first."""
    cost = found.steady
    return min(32 * USE * 1e6 / cost.database_us, 300e6 / cost.wal_bytes)


def _round(value: float) -> str:
    digits = 1 - math.floor(math.log10(value))
    return f"{round(value, digits):,.0f}"


def _cost_table(found: Costs) -> str:
    rows = [
        *_of_record("a record about a member of its own, who is published", found.steady),
        *_of_record(f"one of {RECORDS_PER_MEMBER} about one member in a backlog", found.backlog),
        ("a member looked at without change: worker CPU", f"{found.evaluate_worker_us:,.1f} us"),
        ("the same: database CPU", f"{found.evaluate_database_us:,.1f} us"),
        ("a fact on disk, indexes included", f"{found.fact_bytes:,.0f} bytes"),
        ("a member on disk, history and indexes included", f"{found.member_bytes:,.0f} bytes"),
        ("a worker's memory", f"{found.worker_mb:,.0f} MB"),
    ]
    return markdown_table(("what", "measured"), rows).rstrip()


def _of_record(what: str, cost: Cost) -> list[tuple[str, str]]:
    return [
        (f"{what}: worker CPU", f"{cost.worker_us:,.1f} us"),
        ("the same: broker CPU", f"{cost.broker_us:,.1f} us"),
        ("the same: database CPU", f"{cost.database_us:,.1f} us"),
        ("the same: write-ahead log", f"{cost.wal_bytes:,.0f} bytes"),
    ]


def _rate_table(found: Costs) -> str:
    rows, cost = [], found.steady
    for rate in RATES:
        workers = workers_for(rate, found)
        rows.append(
            (
                f"{rate:,}",
                f"{workers:,}",
                f"{partitions_for(workers):,}",
                f"{max(1, math.ceil(rate * cost.broker_us / 1e6 / USE)):,}",
                f"{max(1, math.ceil(rate * cost.database_us / 1e6 / USE)):,}",
                f"{rate * cost.wal_bytes / 1e6:,.1f} MB/s",
                "one" if rate <= _database_limit(found) else
                f"{math.ceil(rate / _database_limit(found)):,} cells",
            )
        )  # fmt: skip
    columns = ("records/s", "workers", "partitions of a topic", "broker cores", "database cores",
               "write-ahead log", "PostgreSQL")  # fmt: skip
    return markdown_table(columns, rows).rstrip()


def _member_table(found: Costs) -> str:
    rows = []
    for members in MEMBERS:
        disk = members * (found.member_bytes + FACTS_PER_MEMBER * found.fact_bytes)
        core_s = members * (found.evaluate_worker_us + found.evaluate_database_us) / 1e6
        memory = max(1.0, disk / 4 / 2**30)
        rows.append(
            (f"{members:,}", _size(disk), f"{memory:,.0f} GB", f"{core_s:,.0f} s")
        )  # fmt: skip
    columns = ("members", "disk", "memory of the database", "CPU of a day's recompute")
    return markdown_table(columns, rows).rstrip()


def _size(size: float) -> str:
    return f"{size / 2**30:,.1f} GB" if size >= 2**30 else f"{size / 2**20:,.0f} MB"
