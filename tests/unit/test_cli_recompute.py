"""How far `recompute --as-of` goes back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from service.cli import main
from service.cli.recompute import FIRST_AS_OF
from service.evaluation import evaluate
from service.instants import wire_time
from service.signals import NO_DATES, Activity, Dates, JoinedAtSource
from service.thresholds import DEFAULT_THRESHOLDS, MAX_DAYS
from service.timeline import Case
from tests.command import settings_for


def as_of(at: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code."""
    for name, value in settings_for().items():
        monkeypatch.setenv(name, value)
    return main.run(["recompute", "--org", "club", "--as-of", at])


def test_instants_without_room_for_a_window_before_them_are_wrong_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert as_of(wire_time(FIRST_AS_OF - timedelta(microseconds=1)), monkeypatch) == 2
    assert "--as-of goes back to 0010-" in capsys.readouterr().err
    # Nobody answers at that address, which is found out later.
    assert as_of(wire_time(FIRST_AS_OF), monkeypatch) == 1


def test_the_first_instant_can_be_evaluated() -> None:
    longest = DEFAULT_THRESHOLDS._replace(
        activity_window_days=MAX_DAYS, new_member_days=MAX_DAYS, inactive_after_days=MAX_DAYS
    )
    dates = Dates([FIRST_AS_OF - timedelta(days=1)])
    joined_at = FIRST_AS_OF - timedelta(days=9)
    activity = Activity(dates, dates, NO_DATES, joined_at, JoinedAtSource.MEMBERSHIP)
    evaluated = evaluate(Case(activity, longest, True, None), FIRST_AS_OF)
    assert evaluated.signals.events_attended_90d == 1
