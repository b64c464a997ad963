"""Settings that are wrong, alone or together, stop every start and are named."""

from __future__ import annotations

import pytest

from service.cli import main
from service.errors import SettingsError
from service.settings import load_settings

COMMANDS = [["config"], ["worker"], ["api"], ["migrate"], ["doctor"], ["recompute"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ENGAGEMENT_RECOMPUTE_CRON", "whenever", "is no cron line: Wrong number of fields"),
        ("ENGAGEMENT_RECOMPUTE_CRON", "0 25 * * *", "is no cron line: Bad hour"),
        ("ENGAGEMENT_TOPIC_DEAD_LETTER", "community.rsvp.v1", "name the same topic"),
        ("ENGAGEMENT_TOPIC_LEVEL", "..", "is no name of a topic"),
    ],
)
def test_every_start_is_refused(
    command: list[str],
    name: str,
    value: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv(name, value)
    assert main.run(command) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("engagement: wrong settings: ")
    assert captured.err.endswith(f"{name}: {said}\n")


def test_topics_with_one_name_are_named_in_pairs() -> None:
    given = {
        "ENGAGEMENT_TOPIC_RSVP": "community.attendance.v1",
        "ENGAGEMENT_TOPIC_LEVEL": "mine",
        "ENGAGEMENT_TOPIC_CHANGE": " mine ",
    }
    with pytest.raises(SettingsError) as caught:
        load_settings(given)
    assert str(caught.value) == (
        "ENGAGEMENT_TOPIC_ATTENDANCE and ENGAGEMENT_TOPIC_RSVP: name the same topic; "
        "ENGAGEMENT_TOPIC_LEVEL and ENGAGEMENT_TOPIC_CHANGE: name the same topic"
    )


def test_names_may_change_places() -> None:
    settings = load_settings(
        {
            "ENGAGEMENT_TOPIC_RSVP": "community.attendance.v1",
            "ENGAGEMENT_TOPIC_ATTENDANCE": "community.rsvp.v1",
        }
    )
    assert settings.topic_rsvp == "community.attendance.v1"


@pytest.mark.parametrize(
    ("unknown", "meant"),
    [
        ("ENGAGEMENT_API_PRT", "ENGAGEMENT_API_PORT"),
        ("ENGAGEMENT_TOPIC_LEVELS", "ENGAGEMENT_TOPIC_LEVEL"),
        ("ENGAGEMENT_IMPLICIT_MEMBERSHIPS", "ENGAGEMENT_IMPLICIT_MEMBERSHIP"),
        ("ENGAGEMENT_DATABASE_URL", "DATABASE_URL"),
        ("ENGAGEMENT_FOO", None),
        ("ENGAGEMENT_TOPIC_FOO", None),
        ("ENGAGEMENT_", None),
    ],
)
def test_only_a_name_that_is_close_is_offered(unknown: str, meant: str | None) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({unknown: "1"})
    hint = f" (do you mean {meant}?)" if meant else ""
    assert str(caught.value).startswith(f"unknown setting {unknown}{hint}: ")
