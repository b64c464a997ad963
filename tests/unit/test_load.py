"""Load for benchmarks is of the size, mix and order that it says; real data keep their rhythm."""

import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from service.demo.population import InputRecord, contribution_days, load, southern_women
from tests.oracle import Oracle

RECORDS = 20_000
NOW = datetime(2026, 6, 1, 9, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def records() -> list[InputRecord]:
    return list(load(1, RECORDS, 2_000))


def test_exactly_so_many_records_of_260_bytes(records: list[InputRecord]) -> None:
    assert len(records) == RECORDS
    sizes = Counter(len(one.value or b"") for one in records)
    assert sizes.most_common(1)[0][0] == 260
    assert all(250 < size <= 262 for size in sizes)
    assert list(load(1, RECORDS, 2_000)) == records
    assert not set(load(2, 100, 2_000)) & set(records)


def test_its_mix(records: list[InputRecord]) -> None:
    assert 0.095 < 1 - len(set(records)) / RECORDS < 0.105
    statuses = Counter(json.loads(one.value or b"")["status"] for one in set(records))
    assert 0.015 < (len(set(records)) - statuses["attended"]) / RECORDS < 0.025
    assert {"absent", "void", "partial"} < statuses.keys()


def test_its_order(records: list[InputRecord]) -> None:
    times = [json.loads(one.value or b"")["occurred_at"] for one in records]
    newest = ""
    behind = 0
    for one in times:
        behind += one < newest
        newest = max(newest, one)
    assert 0.08 < behind / RECORDS < 0.35  # the shuffled ones, and some repeats and corrections
    plain = list(load(1, 5_000, 2_000, duplicates=0, shuffled=0, corrections=0))
    occurred = [json.loads(one.value or b"")["occurred_at"] for one in plain]
    assert occurred == sorted(occurred)
    assert len({json.loads(one.value or b"")["id"] for one in plain}) == 5_000


def test_every_record_is_accepted_and_keyed(records: list[InputRecord]) -> None:
    oracle = Oracle()
    ends_at = datetime(2026, 1, 1, tzinfo=UTC)
    for one in records:
        assert oracle.apply(one.kind, one.key, one.value, now=ends_at) is None
    oracle_keys = {":".join(member).encode() for member in oracle.members()}
    assert {one.key for one in records} == oracle_keys
    assert 1_500 < len(oracle_keys) <= 2_000
    assert {org_id for org_id, _ in oracle.members()} == {"load-00", "load-01", "load-02"}
    assert max(one["recorded_at"] for one in oracle.facts("attendance")) < ends_at


def attended_days(records: list[InputRecord]) -> dict[str, list[date]]:
    days: dict[str, set[date]] = {}
    for one in records:
        body = json.loads(one.value or b"")
        day = datetime.fromisoformat(body["occurred_at"]).date()
        assert body["event_id"] == f"day.{day}"
        days.setdefault(body["org_id"], set()).add(day)
    return {org_id: sorted(many) for org_id, many in days.items()}


@pytest.mark.parametrize("hour", [0, 9, 23])
def test_each_projects_last_day_is_today(hour: int) -> None:
    now = NOW.replace(hour=hour)
    records = list(contribution_days(now))
    assert len(records) == 904 + 428 + 982
    days = attended_days(records)
    assert days.keys() == {"project-a", "project-b", "project-c"}
    assert {many[-1] for many in days.values()} == {NOW.date()}
    oracle = Oracle()
    assert {oracle.apply(one.kind, one.key, one.value, now=now) for one in records} == {None}
    assert len(oracle.facts("attendance")) == len(records)
    assert len({one["id"] for one in oracle.facts("attendance")}) == len(records)


def test_the_rhythm_stays() -> None:
    now_gaps, later_gaps = (
        {
            org_id: [after - before for before, after in pairwise(days)]
            for org_id, days in attended_days(list(contribution_days(now))).items()
        }
        for now in (NOW, NOW + timedelta(days=77))
    )
    assert now_gaps == later_gaps


def test_southern_women_come_as_they_are() -> None:
    bodies = [json.loads(one.value or b"") for one in southern_women()]
    assert len(bodies) == len({body["id"] for body in bodies}) == 89
    assert len({body["user_id"] for body in bodies}) == 18
    assert {body["occurred_at"][:4] for body in bodies} == {"1936"}
    assert list(southern_women()) == list(southern_women())
