"""From a backlog of attendance records to committed facts, offsets and due marks.

All contenders read the same topic and write to fresh tables of the same database server, in turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from service.settings import load_settings
from tests.bench.contenders import Contender, Peer, ours, peer
from tests.bench.ground import backlog as backlogs
from tests.bench.ground import report
from tests.bench.ground.backlog import Backlog
from tests.bench.ground.rounds import Figures, alternate, ratios, spread
from tests.bench.ground.servers import Ground, ground

RECORDS = 600_000
QUICK_RECORDS = 30_000


def _limit_arguments(key: str, settings: Any) -> Any:
    def arguments(ground: Ground, backlog: Backlog, url: str, _: str) -> list[str]:
        return [
            "-m", "tests.bench.peers.limit", ground.bootstrap, backlog.topic, str(backlog.records),
            url, key, str(settings.batch_max_records), str(settings.active_partitions),
        ]  # fmt: skip

    return arguments


def peers() -> dict[str, Peer]:
    """Everybody but the service, by name."""
    settings = load_settings({})
    everything = "merging, members, due marks, offsets, dead letters, protection from repeats"
    found = [
        Peer("limit", _limit_arguments("text", settings), "copied", False, everything),
        Peer("limit-offset-key", _limit_arguments("offset", settings), "copied", False, everything),
    ]
    return {each.name: each for each in found}


def main(  # noqa: PLR0913 - one parameter for each option of the command line
    json_path: Path | None = None,
    quick: bool = False,
    *,
    records: int | None = None,
    repetitions: int | None = None,
    only: str | None = None,
    batch: int | None = None,
    active: int | None = None,
) -> dict[str, Any]:
    """`--only ours,limit` chooses contenders; `--batch`, `--active` override settings of ours."""
    chosen = only.split(",") if only else ["ours", *peers()]
    environment = {}
    if batch:
        environment["ENGAGEMENT_BATCH_MAX_RECORDS"] = str(batch)
    if active:
        environment["ENGAGEMENT_ACTIVE_PARTITIONS"] = str(active)
    count = records or (QUICK_RECORDS if quick else RECORDS)
    results = asyncio.run(
        _run(count, repetitions or (1 if quick else 3), chosen, environment)
    )
    return _record(results, count)


async def _run(
    count: int, repetitions: int, chosen: Sequence[str], environment: dict[str, str]
) -> dict[str, list[Figures]]:
    with ground() as servers:
        report.say(f"filling a topic with {count:,} records")
        backlog = await backlogs.fill(servers, "backlog", count)
        report.say(f"{backlog.facts:,} facts about at most {backlog.members:,} members")
        contenders: dict[str, Contender] = {}
        for name in chosen:
            if name == "ours":
                contenders[name] = ours(servers, backlog, environment)
            else:
                contenders[name] = peer(servers, backlog, peers()[name])
        return await alternate(contenders, repetitions, report.say)


def _record(results: Mapping[str, Sequence[Figures]], count: int) -> dict[str, Any]:
    rows = []
    for name, figures in results.items():
        rates = spread([f["records_s"] for f in figures])
        cpu = spread([f["cpu_s"] * 1e6 / count for f in figures])
        database = spread([f["database_cpu_s"] * 1e6 / count for f in figures])
        rows.append(
            [
                name,
                f"{rates.median:,.0f}",
                f"{rates.least:,.0f} to {rates.most:,.0f}",
                f"{cpu.median:,.1f}",
                f"{database.median:,.1f}",
            ]
        )
    metrics: dict[str, float] = {}
    if "ours" in results:
        metrics["ingest.records_s"] = spread([f["records_s"] for f in results["ours"]]).median
        metrics["ingest.e2e_records_s"] = spread(
            [f["e2e_records_s"] for f in results["ours"]]
        ).median
        if "limit" in results:
            metrics["ingest.vs_limit"] = ratios(results, "ours", "limit", "records_s").median
            metrics["ingest.e2e_vs_limit"] = ratios(
                results, "ours", "limit", "e2e_records_s"
            ).median
    table = report.table(
        f"ingest: {count:,} records",
        ("contender", "records/s", "from least to most", "CPU us/record", "database CPU us/record"),
        rows,
    )
    return report.report("ingest", metrics, tables=[table])
