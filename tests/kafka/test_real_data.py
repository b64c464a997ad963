"""Real attendance, imported and looked back on at many instants, against the oracle."""

from __future__ import annotations

import csv
import gzip
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from service.cli import main
from service.instants import wire_time
from tests.command import done, settings_for
from tests.oracle import Oracle
from tests.oracle.state import Evaluation
from tests.owners import wait_until
from tests.servers import KafkaBroker
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.timeout(300)

DATA = Path(__file__).parents[2] / "service/demo/data"
DAVIS = DATA / "davis_southern_women.csv"
PROJECTS = sorted(DATA.glob("contribution_days_*.csv.gz"))
INSTANTS = ("1936-04-20", "1936-07-01", "1936-11-30", "1937-06-01")
DATES = 12
FIELDS = (
    *("org_id", "user_id", "level", "reason", "signals"),
    *("next_change_at", "next_level_change_at", "next_level"),
)


class RealData:
    """A database into which all files were imported, and the oracle after the same rows."""

    def __init__(self, settings: dict[str, str]) -> None:
        self.settings = settings
        self.oracle = Oracle()
        self.rows = {path: read(path) for path in (DAVIS, *PROJECTS)}
        number = 0
        for rows in self.rows.values():
            for row in rows:
                number += 1
                body = row | {"id": f"row-{number}", "recorded_at": row["occurred_at"]}
                value = json.dumps(body).encode()
                code = self.oracle.apply("attendance", None, value, now=datetime.now(UTC))
                assert code is None

    def expected(self, org_id: str, as_of: datetime) -> dict[str, dict[str, Any]]:
        found = self.oracle.evaluate_all(as_of, org_id)
        return {user: chosen(one) for (_, user), one in found.items()}


def read(path: Path) -> list[dict[str, str]]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return list(csv.DictReader(io.StringIO(text)))


def chosen(one: Evaluation) -> dict[str, Any]:
    return {name: one[name] for name in FIELDS}  # type: ignore[literal-required]


def parsed(line: str) -> dict[str, Any]:
    """A printed line with its times as instants; each has to be RFC 3339 with Z."""
    found: dict[str, Any] = json.loads(line)
    assert tuple(found) == FIELDS
    for part in (found, found["signals"]):
        for name, value in part.items():
            if name.endswith("_at") and value is not None:
                assert value.endswith("Z")
                part[name] = datetime.fromisoformat(value)
    return found


@pytest.fixture
def real_data(
    kafka_broker: KafkaBroker,
    database: str,
    topic_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> RealData:
    settings = settings_for(
        bootstrap=kafka_broker.bootstrap, database=database, prefix=topic_prefix
    )
    found = RealData(settings)
    done("topics", "apply", settings=settings)
    for path, rows in found.rows.items():
        said = done("import", "attendance", str(path), settings=settings)
        assert said == f"{len(rows)} records sent, 0 rows refused\n"
    with WorkerProcess(settings) as worker:
        members = len(found.oracle.members())
        wait_until(
            lambda: len(
                done("tail", "level", "--from-beginning", "--no-follow", settings=settings)
                .splitlines()
            ) >= members, 120,
        )  # fmt: skip
        assert worker.end()[0] == 0
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return found


def recomputed(
    capsys: pytest.CaptureFixture[str], org_id: str, as_of: datetime
) -> dict[str, dict[str, Any]]:
    """What `engagement recompute --as-of` prints, by user."""
    text = wire_time(as_of)
    command = ["recompute", "--org", org_id, "--as-of", text, "--dry-run", "--json"]
    assert main.run(command) == 0
    found = [parsed(line) for line in capsys.readouterr().out.splitlines()]
    by_user = {one["user_id"]: one for one in found}
    assert len(by_user) == len(found)
    return by_user


def test_every_member_at_every_instant_as_the_oracle_says(
    real_data: RealData, capsys: pytest.CaptureFixture[str]
) -> None:
    compared = 0
    for text in INSTANTS:
        as_of = datetime.fromisoformat(text).replace(tzinfo=UTC)
        expected = real_data.expected("old-city", as_of)
        assert len(expected) == 18
        assert recomputed(capsys, "old-city", as_of) == expected
        compared += len(expected)
    for path in PROJECTS:
        rows = real_data.rows[path]
        org_id = rows[0]["org_id"]
        life = sorted(datetime.fromisoformat(row["occurred_at"]) for row in rows)
        for number in range(DATES):
            as_of = life[0] + number * (life[-1] - life[0]) / (DATES - 1)
            expected = real_data.expected(org_id, as_of)
            assert recomputed(capsys, org_id, as_of) == expected
            compared += len(expected)
    # 18 women at 4 instants; 82, 51 and 183 contributors at 12.
    assert compared == 18 * 4 + (82 + 51 + 183) * 12
    # It wrote nothing: signals still follow from the facts at each row's own instant.
    assert main.run(["doctor", "--rebuild"]) == 0
    assert "334 members rebuilt from their facts, 0 differ" in capsys.readouterr().out
