"""The made-up population is what it says: the same each time, lifelike, and bad where asked."""

import ast
import json
import random
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import service.demo.population
import service.instants
from service.demo.bad_records import BAD_VALUES
from service.demo.population import InputRecord, Population, Rates
from tests.oracle import KINDS, Oracle

NOW = datetime(2026, 6, 1, 9, 30, 15, 123_456, tzinfo=UTC)
DAY = timedelta(days=1)
NOTHING_WRONG = Rates(
    corrections=0, late=0, duplicates=0, clashes=0, cloud_events=0, bad=0, early_check_in=0
)


@cache
def sample() -> list[InputRecord]:
    return list(Population(1, members=600, ends_at=NOW).records())


@cache
def tidy() -> list[InputRecord]:
    return list(Population(1, members=600, ends_at=NOW, rates=NOTHING_WRONG).records())


def fold(records: Iterable[InputRecord]) -> tuple[Oracle, Counter[str | None]]:
    """The oracle after these records, and how many got which code."""
    oracle = Oracle()
    codes = Counter(
        oracle.apply(one.kind, one.key, one.value, headers=one.headers, now=NOW) for one in records
    )
    return oracle, codes


def bodies(records: Iterable[InputRecord], kind: str) -> list[dict[str, Any]]:
    return [json.loads(one.value or b"") for one in records if one.kind == kind]


def share(part: float, whole: float) -> float:
    return part / whole


def test_it_needs_the_standard_library_only() -> None:
    folder = Path(service.demo.population.__file__).parent
    names = ("population", "sending", "member_life", "bad_records", "load", "real_data")
    files = [folder / f"{name}.py" for name in (*names, "input_record")]
    files.append(Path(service.instants.__file__))
    allowed = {"service.instants"} | {"service.demo." + file.stem for file in files}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("service"):
                assert node.module in allowed
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not {one.split(".")[0] for one in found} & {"pydantic", "msgspec", "aiokafka"}


def test_the_same_seed_gives_the_same_bytes() -> None:
    population = Population(1, members=600, ends_at=NOW)
    assert list(population.records()) == sample()
    assert list(population.records()) == sample()
    other = Population(2, members=600, ends_at=NOW, rates=NOTHING_WRONG)
    assert not {one.value for one in other.records()} & {one.value for one in tidy()}


def test_keys_are_the_ids_of_the_value() -> None:
    for one in tidy():
        body = json.loads(one.value or b"")
        names = [name for name in ("org_id", "user_id") if name in body]
        assert one.key == ":".join(body[name] for name in names).encode()


def test_with_nothing_wrong_everything_is_accepted_once_and_in_order() -> None:
    oracle, codes = fold(tidy())
    assert codes == {None: len(tidy())}
    assert {one.kind for one in tidy()} == set(KINDS)
    ids = [body["id"] for kind in KINDS for body in bodies(tidy(), kind)]
    assert len(set(ids)) == len(ids)
    times = [datetime.fromisoformat(json.loads(one.value or b"")["recorded_at"]) for one in tidy()]
    assert max(times) <= NOW
    backward = [before - after for before, after in pairwise(times) if after < before]
    assert max(backward, default=timedelta(0)) < timedelta(seconds=3)
    assert oracle.clashes == 0


def test_people_join_leave_and_return_or_were_never_recorded() -> None:
    memberships: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for body in bodies(tidy(), "membership"):
        memberships.setdefault((body["org_id"], body["user_id"]), []).append(body)
    statuses = Counter(
        tuple(body["status"] for body in sorted(many, key=lambda body: body["joined_at"]))
        for many in memberships.values()
    )
    assert statuses["active",] > 400
    left = [many for many in memberships.values() if len(many) == 2]
    back = [many for many in memberships.values() if len(many) > 2]
    assert len(left) > 15
    assert len(back) > 3
    assert all(many[2]["joined_at"] > many[0]["joined_at"] for many in back)
    oracle, _ = fold(tidy())
    unrecorded = set(oracle.members()) - memberships.keys()
    assert 5 < len(unrecorded) < 45
    organisations = Counter(user_id for _, user_id in oracle.members())
    assert 5 < sum(1 for number in organisations.values() if number > 1) < 40
    admins = {body["user_id"] for body in bodies(tidy(), "membership") if "role" in body}
    assert 1 <= len(admins) < 20


def test_every_level_is_there_and_none_is_nearly_everybodys() -> None:
    oracle, _ = fold(sample())
    levels = Counter(one["level"] for one in oracle.evaluate_all(NOW).values())
    scored = sum(number for level, number in levels.items() if level is not None)
    for level in ("highly_engaged", "moderate", "at_risk", "new", "inactive"):
        assert 0.02 < share(levels[level], scored) < 0.6, levels


def test_interest_comes_in_spells() -> None:
    """Keen members come often, then not for months, and then often again."""
    days: dict[str, list[datetime]] = {}
    for body in bodies(tidy(), "attendance"):
        if body["status"] != "absent":
            occurred_at = datetime.fromisoformat(body["occurred_at"])
            days.setdefault(body["user_id"], []).append(occurred_at)
    gaps = [
        [after - before for before, after in pairwise(sorted(many))]
        for many in days.values()
        if len(many) >= 12
    ]
    assert len(gaps) > 30
    returned = [one for one in gaps if max(one[3:-3]) > timedelta(days=90)]
    assert len(returned) > 3
    ended = [many for many in days.values() if len(many) >= 12 and max(many) < NOW - 120 * DAY]
    assert len(ended) > 3


def test_what_goes_wrong_goes_wrong_as_often_as_asked() -> None:
    rates = Rates()
    _, codes = fold(sample())
    good = [one for one in sample() if fold([one])[1] == {None: 1}]
    repeats = len(good) - len(set(good))
    assert 0.5 < share(repeats, rates.duplicates * len(good)) < 2
    headed = [one for one in good if one.headers]
    assert 0.5 < share(len(headed), rates.cloud_events * len(good)) < 2
    assert all("id" not in json.loads(one.value or b"") for one in headed)
    bad = len(sample()) - codes[None]
    assert bad < 2 * (rates.bad * len(good) + len(BAD_VALUES))
    assert set(codes) == {None, *(code for code, _ in BAD_VALUES)}
    times = [json.loads(one.value or b"")["recorded_at"] for one in good]
    instants = [datetime.fromisoformat(one) for one in times]
    newest = instants[0]
    behind = 0
    for instant in instants:
        newest = max(newest, instant)
        behind += newest - instant > timedelta(hours=1)
    assert 0.5 < share(behind, (rates.late + rates.duplicates) * len(good)) < 2
    corrected: dict[tuple[str, ...], set[str]] = {}
    for body in bodies(good, "attendance"):
        key = (body["org_id"], body["user_id"], body["event_id"])
        corrected.setdefault(key, set()).add(body["status"])
    changes = [statuses for statuses in corrected.values() if len(statuses) > 1]
    assert 0.4 < share(len(changes), rates.corrections * len(corrected)) < 2.5
    assert any("attended" in statuses and statuses & {"absent", "void"} for statuses in changes)


def test_clashes_and_early_check_ins() -> None:
    rates = Rates(clashes=0.05, early_check_in=0.1, bad=0)
    records = list(Population(3, members=300, ends_at=NOW, rates=rates).records())
    oracle, codes = fold(records)
    assert codes == {None: len(records)}
    assert oracle.clashes > 20
    ahead = [one for one in oracle.facts("attendance") if one["occurred_at"] > one["recorded_at"]]
    assert len(ahead) > 20


def test_facts_do_not_depend_on_the_order() -> None:
    rates = Rates(clashes=0.02, erasures=0.1)
    records = list(Population(4, members=200, ends_at=NOW, rates=rates).records())
    tombstones = {one.key for one in records if one.value is None and one.kind == "membership"}
    assert 8 < len(tombstones) < 40
    in_turn, _ = fold(records)
    random.Random(0).shuffle(records)
    shuffled, _ = fold(records)
    for kind in KINDS:
        assert in_turn.facts(kind) == shuffled.facts(kind)
    known = {":".join(member).encode() for member in in_turn.members()}
    assert not known & tombstones


@pytest.mark.parametrize("kind", ["attendance", "rsvp", "profile-update"])
@pytest.mark.parametrize("number", range(len(BAD_VALUES)))
def test_each_way_to_spoil_a_record_gets_its_code(kind: str, number: int) -> None:
    code, spoil = BAD_VALUES[number]
    value = spoil(bodies(tidy(), kind)[0])
    assert Oracle().apply(kind, None, value, now=NOW) == code


def test_sizes_are_options() -> None:
    small = Population(1, organisations=40, members=50, days=30, ends_at=NOW)
    assert len({one.org_id for one in small.organisations}) == 40
    oracle, _ = fold(small.records())
    assert 0 < len(oracle.members()) <= 50
    assert list(Population(1, members=0, ends_at=NOW, rates=Rates(bad=0)).records())
