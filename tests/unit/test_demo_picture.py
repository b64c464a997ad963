"""The demo's screen, and what trickles in while people look on."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from service.demo.picture import Picture, SeenChange
from service.demo.population import Population
from service.demo.screen import screen, summary
from service.demo.trickle import WEIGHTS, Trickle
from service.levels import Level
from tests.oracle import Oracle

NOW = datetime(2026, 1, 15, 12, 30, tzinfo=UTC)


@pytest.fixture
def picture() -> Picture:
    found = Picture(stage="live")
    found.sent.update(attendance=1234, rsvp=99)
    found.applied.update(attendance=1230)
    found.levels = {f"club:{n}": level for n, level in enumerate(Level)}
    found.level_records, found.tombstones = 77, 5
    found.changes.update(signals=60, time=2)
    found.recent.append(SeenChange("club:ada", "moderate", "at_risk", "time"))
    found.recent.append(SeenChange("club:[bold]ada", None, "new", "membership"))
    found.dead_letters.update(schema=3, not_json=1)
    found.links.append("http://127.0.0.1:8080/sign-in?code=x")
    return found


def drawn(picture: Picture, width: int) -> str:
    console = Console(width=width, height=50, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(screen(picture))
    return captured.get()


@pytest.mark.parametrize("width", [80, 110, 200])
def test_one_screen_shows_it_all(picture: Picture, width: int) -> None:
    said = drawn(picture, width)
    for part in (
        *("attendance", "1,234", "1,230", "live", "Ctrl-C", "sign-in?code=x"),
        *("level records", "77", "of them tombstones", "because of signals", "60"),
        *("schema", "not_json", *Level),
        *("moderate → at_risk", "time"),
    ):
        assert part in " ".join(said.split()), part
    assert all(len(line) <= width for line in said.splitlines())


def test_ids_are_not_taken_for_markup(picture: Picture) -> None:
    assert "[bold]ada" in drawn(picture, 110)


def test_an_empty_screen_can_be_drawn() -> None:
    assert "What goes in" in drawn(Picture(), 80)


def test_the_picture_in_one_line(picture: Picture) -> None:
    assert summary(picture) == (
        "sent 1333, applied 1230, level records 77, changes 62, dead letters 4; "
        "highly_engaged 1, moderate 1, at_risk 1, new 1, inactive 1"
    )


# The trickle


@pytest.fixture(scope="module")
def population() -> Population:
    return Population(1, 2, 30, 60, ends_at=NOW)


def test_the_trickle_does_everything_and_mostly_well(population: Population) -> None:
    oracle, trickle = Oracle(), Trickle(population, 1)
    for record in population.records():
        oracle.apply(record.kind, record.key, record.value, now=NOW, headers=record.headers)
    codes: Counter[str | None] = Counter()
    kinds: Counter[str] = Counter()
    for number in range(1_000):
        now = NOW + timedelta(seconds=number)
        record = trickle.next(now)
        kinds[record.kind] += 1
        codes[oracle.apply(record.kind, record.key, record.value, now=now)] += 1
    assert kinds.keys() == {"attendance", "rsvp", "profile-update", "membership"}
    bad = codes.total() - codes[None]
    assert 10 <= bad <= 60
    assert len(codes) >= 6
    levels = Counter(
        one["level"] for one in oracle.evaluate_all(NOW + timedelta(seconds=1_000)).values()
    )
    assert levels[None] > 0
    assert levels["new"] > 0
    assert levels["moderate"] + levels["highly_engaged"] > 0


def test_the_same_seed_does_the_same(population: Population) -> None:
    def records(seed: int) -> list[object]:
        trickle = Trickle(population, seed)
        return [trickle.next(NOW) for _ in range(100)]

    assert records(1) == records(1)
    assert records(1) != records(2)


def test_who_is_signed_in_stays() -> None:
    someone = Population(1, 1, 1, 60, ends_at=NOW)
    ((_, member),) = someone.members()
    trickle = Trickle(someone, 1, staying=member.user_id)
    key = f"{member.org_id}:{member.user_id}".encode()
    left = [
        record
        for record in (trickle.next(NOW) for _ in range(20 * sum(WEIGHTS.values())))
        if record.kind == "membership" and b'"left"' in (record.value or b"")
    ]
    assert left
    assert key not in {record.key for record in left}
