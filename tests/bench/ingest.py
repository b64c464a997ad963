"""From a backlog of attendance records to committed facts, offsets and due marks.

All contenders read the same records and write to fresh tables of the same database server, in turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from service.settings import load_settings
from tests.bench.contenders import Contender, Peer, ours, peer
from tests.bench.environments import version_in
from tests.bench.ground import backlog as backlogs
from tests.bench.ground import report
from tests.bench.ground.backlog import Backlog
from tests.bench.ground.rounds import Figures, Spread, alternate, spread
from tests.bench.ground.servers import Ground, ground

RECORDS = 600_000
QUICK_RECORDS = 24_000
SLOW = 20  # the slowest get a twentieth of the backlog, so that they end within a minute
OURS = "ours"
LIMIT = "limit"

MERGES_ONLY = "a"
LAST_READ = "a b"
NOTHING = "a c"
NOTES = (
    "Does less than the service:",
    "a  no members, no due marks, no dead letters, offsets not in the transaction of the facts",
    "b  the record read last wins, whether or not it is the newest",
    "c  no merging: a repeat or a correction is one more row",
)


def peers() -> dict[str, Peer]:
    """Everybody but the service, by name. The limit has as much in flight as the service."""
    settings = load_settings({})
    flight = (str(settings.batch_max_records), str(settings.active_partitions))
    found = [
        Peer("plain-faust", "faust_agent", "attendance", MERGES_ONLY, ("1",), ("one",),
             "faust", part=SLOW),
        Peer("faust-16-actors", "faust_agent", "attendance", MERGES_ONLY, ("16",), ("one",),
             "faust", part=SLOW),
        Peer("faust-take", "faust_agent", "attendance", MERGES_ONLY, ("2000",), ("take",),
             "faust", part=5),
        Peer("quix", "quix_sink", "attendance", LAST_READ,
             ("5",), environment="quix", part=2),
        Peer("faststream", "faststream_batch", "attendance", MERGES_ONLY, ("5000",),
             environment="faststream"),
        Peer(LIMIT, "limit", "copied", NOTHING, ("text", *flight), merges=False),
        Peer("limit-offset-key", "limit", "copied", NOTHING, ("offset", *flight), merges=False),
    ]  # fmt: skip
    return {each.name: each for each in found}


PYTHON_PEERS = ("plain-faust", "faust-16-actors", "faust-take", "quix", "faststream")


def main(
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
    chosen = only.split(",") if only else [OURS, *peers()]
    environment = {}
    if batch:
        environment["ENGAGEMENT_BATCH_MAX_RECORDS"] = str(batch)
    if active:
        environment["ENGAGEMENT_ACTIVE_PARTITIONS"] = str(active)
    count = records or (QUICK_RECORDS if quick else RECORDS)
    results = asyncio.run(_run(count, repetitions or (1 if quick else 3), chosen, environment))
    return report.report(
        "ingest",
        metrics_of(results),
        more_versions=_peer_versions(),
        tables=[_table(results, count)],
    )


async def _run(
    count: int, repetitions: int, chosen: Sequence[str], environment: dict[str, str]
) -> dict[str, list[Figures]]:
    with ground() as servers:
        made: dict[int, Backlog] = {}
        contenders: dict[str, Contender] = {}
        for name in chosen:
            what = None if name == OURS else peers()[name]
            part = 1 if what is None else what.part
            if part not in made:
                made[part] = await _fill(servers, count, part)
            contenders[name] = (
                ours(servers, made[part], environment)
                if what is None
                else peer(servers, made[part], what)
            )
        return await alternate(contenders, repetitions, report.say)


async def _fill(servers: Ground, count: int, part: int) -> Backlog:
    report.say(f"filling a topic with {count // part:,} records")
    made = await backlogs.fill(servers, servers.fresh("backlog"), count, part=part)
    report.say(f"{made.facts:,} facts about at most {made.members:,} members")
    return made


def metrics_of(results: Mapping[str, Sequence[Figures]]) -> dict[str, float]:
    """The metrics that the contenders who took part allow; ratios are medians of the rounds'."""
    if OURS not in results:
        return {}
    mine = [figures["records_s"] for figures in results[OURS]]
    mine_to_the_end = [figures["e2e_records_s"] for figures in results[OURS]]
    metrics = {
        "ingest.records_s": spread(mine).median,
        "ingest.e2e_records_s": spread(mine_to_the_end).median,
    }
    others = {
        name: [figures["records_s"] for figures in rounds]
        for name, rounds in results.items()
        if name != OURS
    }
    named = {
        "ingest.vs_plain_faust": "plain-faust",
        "ingest.vs_quix": "quix",
        "ingest.vs_limit": LIMIT,
        "ingest.vs_offset_key_limit": "limit-offset-key",
    }
    for metric, name in named.items():
        if name in others:
            metrics[metric] = ratio(mine, others[name]).median
    if LIMIT in others:
        metrics["ingest.e2e_vs_limit"] = ratio(mine_to_the_end, others[LIMIT]).median
    python = [others[name] for name in PYTHON_PEERS if name in others]
    if len(python) == len(PYTHON_PEERS):
        best = [max(rates) for rates in zip(*python, strict=True)]
        metrics["ingest.vs_best_python"] = ratio(mine, best).median
    return metrics


def ratio(mine: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Round by round, since those of one round ran within the same minutes."""
    return spread([a / b for a, b in zip(mine, theirs, strict=True)])


def _table(results: Mapping[str, Sequence[Figures]], count: int) -> dict[str, Any]:
    known = peers()
    rows = []
    for name, rounds in results.items():
        what = known.get(name)
        part, lacks = (what.part, what.lacks) if what else (1, "")
        shown = f"{name}, 1/{part} of the backlog" if part > 1 else name
        per_record = 1e6 * part / count
        used = [
            f"{spread([figures[each] for figures in rounds]).median * per_record:,.1f}"
            for each in ("cpu_s", "database_cpu_s")
        ]
        rows.append([shown, *_rates(rounds, "records_s"), *used, lacks])
        if name == OURS:
            rows.append(["ours, to the last level record", *_rates(rounds, "e2e_records_s")])
            rows[-1] += ["", "", ""]
    columns = ("contender", "records/s", "least to most", "CPU us/record", "database CPU us/record",
               "less")  # fmt: skip
    return report.table(f"ingest: {count:,} records", columns, rows, NOTES)


def _rates(rounds: Sequence[Figures], figure: str) -> list[str]:
    rates = spread([figures[figure] for figures in rounds])
    return [f"{rates.median:,.0f}", f"{rates.least:,.0f} to {rates.most:,.0f}"]


def _peer_versions() -> dict[str, str]:
    wanted = {"quixstreams": "quix", "faststream": "faststream"}
    return {package: version_in(lock, package) for package, lock in wanted.items()}
