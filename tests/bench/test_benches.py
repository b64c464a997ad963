"""Every benchmark, small: that it runs and gives its figures, not what they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench import __main__ as front_door
from tests.bench import pages
from tests.bench.ground.servers import Ground, ground

SMALL = {
    "ingest": ["--only", "ours,limit", "--records", "24000"],
    "latency": ["--seconds", "1", "--maximum", "1500"],
    "growth": ["--ends", "--scale", "5000", "--records", "9000", "--seconds", "0.5"],
    "memory": ["--records", "10000"],
    "scale": ["--records", "6000"],
    "start": ["--repetitions", "1"],
    "evaluate": ["--members", "300"],
    "soak": ["--minutes", "0.1"],
}

# Memory may shrink as well, and whoever keeps up has no lag.
MAY_BE_NOTHING = {
    *("soak.rss_slope_mb_h", "soak.rss_slope_error_mb_h", "soak.lag_most_records"),
    # Nothing is published, and processor time is counted in hundredths of a second.
    "evaluate.again_broker_cpu_us",
}
NEEDS_PEERS = {"ingest.vs_plain_faust", "ingest.vs_quix", "ingest.vs_best_python"}


@pytest.fixture(scope="module")
def servers() -> Iterator[Ground]:
    with ground() as running:
        yield running


def record_of(name: str, arguments: list[str], path: Path) -> dict[str, Any]:
    assert front_door.run([name, "--quick", "--json", str(path), *arguments]) == 0
    record: dict[str, Any] = json.loads(path.read_text("utf-8"))
    assert record["bench"] == name
    assert record["metrics"]
    assert all(key.startswith(f"{name}.") for key in record["metrics"])
    figures = record["metrics"].items()
    assert all(value > 0 for metric, value in figures if metric not in MAY_BE_NOTHING)
    return record


@pytest.mark.timeout(300)  # seconds on a machine of its own; a busy one may take its time
@pytest.mark.parametrize("name", SMALL)
def test_gives_its_figures(servers: Ground, name: str, tmp_path: Path) -> None:
    record = record_of(name, SMALL[name], tmp_path / "record.json")
    promised = {bar.metric for bar in pages.BARS if bar.metric.startswith(f"{name}.")}
    assert promised - NEEDS_PEERS <= set(record["metrics"])


@pytest.mark.nightly  # makes the peers' environments, from the package registry
@pytest.mark.timeout(600)
def test_peers_do_their_work(servers: Ground, tmp_path: Path) -> None:
    record = record_of("ingest", ["--records", "60000"], tmp_path / "record.json")
    assert set(record["metrics"]) >= NEEDS_PEERS
