"""The pages that benchmarks write: from records alone, and never by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench import capacity, pages

MACHINE = {"processor": "A", "cores": 2, "memory_gb": 8.0, "system": "Linux"}
NUMBERS = {
    "scale": {
        "scale.worker_cpu_s_per_million_1w": 50.0,
        "scale.broker_cpu_s_per_million_1w": 10.0,
        "scale.database_cpu_s_per_million_1w": 25.0,
        "scale.wal_bytes_per_record": 1_000.0,
    },
    "growth": {"growth.bytes_per_fact": 200.0, "growth.bytes_per_member": 1_000.0},
    "memory": {"memory.peak_mb": 150.0},
    "evaluate": {
        "evaluate.first_worker_cpu_us": 300.0,
        "evaluate.first_broker_cpu_us": 24.0,
        "evaluate.first_database_cpu_us": 120.0,
        "evaluate.first_wal_bytes": 3_000.0,
        "evaluate.again_worker_cpu_us": 60.0,
        "evaluate.again_database_cpu_us": 40.0,
    },
}


def record(name: str, metrics: dict[str, float]) -> dict[str, Any]:
    return {
        "bench": name,
        "date": "2026-11-23T00:00:00Z",
        "versions": {"python": "3.11"},
        "machine": MACHINE,
        "metrics": metrics,
        "tables": [{"title": "T", "columns": ["a", "b"], "rows": [["x|y", "1"]], "notes": ["N."]}],
    }


def test_a_record_is_kept_and_shown(tmp_path: Path) -> None:
    pages.write("memory", record("memory", {"memory.peak_mb": 300.0}), tmp_path)
    page = tmp_path.joinpath("performance.md").read_text("utf-8")
    assert "| `memory.peak_mb` | 300 | at most 250 | NO |" in page
    assert "| x\\|y | 1 |" in page
    assert json.loads(tmp_path.joinpath("performance/memory.json").read_text("utf-8"))
    assert not tmp_path.joinpath("capacity.md").exists()  # most figures are missing


def test_capacity_follows_from_the_figures(tmp_path: Path) -> None:
    for name, metrics in NUMBERS.items():
        pages.write(name, record(name, metrics), tmp_path)
    page = tmp_path.joinpath("capacity.md").read_text("utf-8")
    assert "<<" not in page
    # A record by itself takes a worker 50 us and 11/12 of 300 more, since a twelfth is in the 50.
    assert "a member of its own, who is published: worker CPU | 325.0 us |" in page
    # 1 M records/s and half of a core's time: 650 workers, four partitions for each.
    assert "| 1,000,000 | 650 | 4,096 | 64 | 270 | 3,750.0 MB/s | 13 cells |" in page
    # 10 M members: (1 000 + 50 * 200) bytes each; 100 us of CPU each.
    assert "| 10,000,000 | 102.4 GB | 26 GB | 1,000 s |" in page


@pytest.mark.parametrize(
    ("rate", "workers", "partitions"), [(100, 2, 8), (10_000, 7, 32), (50_000, 33, 256)]
)
def test_two_workers_at_least(rate: int, workers: int, partitions: int) -> None:
    records = {name: {"metrics": metrics} for name, metrics in NUMBERS.items()}
    costs = capacity.costs(records)
    assert costs is not None
    assert capacity.workers_for(rate, costs) == workers
    assert capacity.partitions_for(workers) == partitions


def test_pages_say_what_the_records_say() -> None:
    records = pages.stored()
    performance, sizes = pages.DOCS / "performance.md", pages.DOCS / "capacity.md"
    if records:
        assert performance.read_text("utf-8") == pages.performance_page(records)
    else:
        assert not performance.exists()
    made = capacity.page(records)
    if made is not None:
        assert sizes.read_text("utf-8") == made
    else:
        assert not sizes.exists()
