"""What pages and members are shown: charts, words, texts, and the files behind them."""

from __future__ import annotations

import hashlib
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.middleware import CONTENT_SECURITY_POLICY
from service.api.pages import charts, words
from service.api.presenting import evidence, own
from service.api.values import (
    TimelineFacts,
)
from service.levels import Direction, Level
from service.texts import is_clean
from tests.api_values import NOW, record

STATIC = Path(__file__).parents[2] / "service" / "api" / "static"

# ---------------------------------------------------------------------------------------- charts


@given(
    st.dictionaries(
        st.tuples(st.integers(0, 40), st.sampled_from(list(Direction))), st.integers(1, 10**6)
    )
)
def test_bars_of_movements_stay_in_the_picture(moves: dict[tuple[int, Direction], int]) -> None:
    today = NOW.date()
    by_day = {(today - timedelta(days=n), d): count for (n, d), count in moves.items()}
    chart = charts.movement_chart(by_day, today)
    assert len(chart.rows) == 30
    assert chart.rows[-1].day == today
    for rect in chart.rects:
        assert rect.y >= 7.9
        assert rect.y + rect.height <= charts.MOVEMENT_HEIGHT - 23.9
        assert 0 <= rect.x <= charts.MOVEMENT_WIDTH
        above = rect.direction is Direction.RISE
        assert rect.y + rect.height <= chart.zero + 0.02 if above else rect.y >= chart.zero - 0.02
    assert chart.totals[Direction.FALL] == sum(
        count for (n, d), count in moves.items() if d is Direction.FALL and n < 30
    )


def test_distribution_shares() -> None:
    bars = charts.distribution({Level.MODERATE: 200, Level.NEW: 1, Level.AT_RISK: 100})
    assert [b.level for b in bars] == list(words.ORDER)
    by_level = {b.level: b for b in bars}
    assert by_level[Level.MODERATE].width == 100
    assert by_level[Level.AT_RISK].width == 50
    assert by_level[Level.NEW].share == "<1\u202f%"
    assert all(b.width == 0 for b in charts.distribution({}))


def test_the_timeline_shows_a_year_and_what_is_ahead() -> None:
    day = timedelta(days=1)
    facts = TimelineFacts(
        [(NOW - 10 * day, "e3"), (NOW - 200 * day, "e2"), (NOW - 390 * day, "e1")],
        [(NOW - 11 * day, "e3")],
        [(NOW - 5 * day, Level.MODERATE), (NOW - 100 * day, None), (NOW - 500 * day, Level.NEW)],
    )
    picture = charts.timeline(facts, NOW, 90, (NOW + 60 * day, Level.AT_RISK))
    assert [mark.what for mark in picture.attended] == ["e2", "e3"]
    assert [band.level for band in picture.bands] == [Level.NEW, Level.MODERATE]
    assert picture.bands[0].x == 0
    assert picture.bands[1].x + picture.bands[1].width == pytest.approx(picture.now, abs=0.1)
    assert picture.next_change is not None
    assert picture.now < picture.next_change.x < charts.TIMELINE_WIDTH
    far = charts.timeline(facts, NOW, 90, (NOW + 3000 * day, None))
    assert far.next_change is None
    assert charts.timeline(TimelineFacts((), (), ()), NOW, 90, None).bands == []


def test_dates_and_numbers_in_words() -> None:
    assert words.day(NOW) == "23 Nov 2026"
    assert words.minute(NOW) == "23 Nov 2026, 12:00 UTC"
    assert words.day(None) == words.minute(None) == "\N{EN DASH}"
    assert words.month(date(2027, 1, 1)) == "Jan 2027"
    assert words.number(1234567) == "1\u202f234\u202f567"
    assert words.share(0, 0) == "0\u202f%"
    assert (words.events(1), words.members(2)) == ("1 event", "2 members")


# ----------------------------------------------------------------------------------------- texts


@given(
    st.sampled_from(list(Level)), st.sampled_from([None, *Level]), st.integers(0, 5),
    st.sampled_from(["Riverside", "The Inactive Club", "At-Risk", "A t r i s k", "inac\u200btive"]),
)  # fmt: skip
def test_a_member_reads_kind_words_only(
    level: Level, then: Level | None, left: int, org: str
) -> None:
    found = own.me(
        record(level=level, next_level=then, next_level_change_at=NOW, events_left=left), org
    )
    assert is_clean(found.model_dump_json())
    assert found.status_label is not None
    assert "Ada" not in (found.user_explanation or "")


def test_nothing_to_say_yet() -> None:
    for unknown in (None, record(level=None), record(user_template=None)):
        assert own.me(unknown, "Riverside").model_dump() == {
            "status_label": None, "user_explanation": None, "computed_at": None, "next_step": None,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("level", "then", "left", "events", "any_activity"),
    [
        (Level.HIGHLY_ENGAGED, Level.MODERATE, 2, 1, False),
        (Level.HIGHLY_ENGAGED, Level.AT_RISK, 0, 3, False),
        (Level.MODERATE, Level.AT_RISK, 0, 1, False),
        (Level.NEW, Level.AT_RISK, 0, 1, False),
        (Level.AT_RISK, Level.INACTIVE, 0, 1, True),
    ],
)
def test_what_would_prevent_a_fall(
    level: Level, then: Level, left: int, events: int, any_activity: bool
) -> None:
    found = evidence.prevention(
        record(level=level, next_level=then, next_level_change_at=NOW, events_left=left)
    )
    assert found is not None
    assert (found.events, found.any_activity, found.before) == (events, any_activity, NOW)


def test_nothing_prevents_what_is_no_fall() -> None:
    for then, at in ((Level.HIGHLY_ENGAGED, NOW), (Level.NEW, NOW), (None, None)):
        assert evidence.prevention(record(next_level=then, next_level_change_at=at)) is None


# ----------------------------------------------------------------------------------------- files


def test_vendored_files_are_those_that_were_published() -> None:
    folder = STATIC / "vendor"
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    named = {name: digest for digest, name in (line.split() for line in lines)}
    assert set(named) == {path.name for path in folder.glob("*.js")} == {"htmx.min.js"}
    for name, digest in named.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name


def test_pages_load_nothing_from_elsewhere() -> None:
    templates = STATIC.parent / "pages" / "templates"
    for path in [*templates.glob("*.html"), *STATIC.glob("*.*")]:
        text = path.read_text()
        for foreign in ("http://", "https://", "//cdn", "<style", " style=", "onclick", "hx-on"):
            allowed = foreign == "http://" and path.name == "icon.svg"
            assert allowed or foreign not in text, (path.name, foreign)
    assert "unsafe" not in CONTENT_SECURITY_POLICY


def test_what_anybody_may_load_names_no_hurtful_level() -> None:
    for path in STATIC.glob("*.*"):
        assert is_clean(path.read_text()), path.name
