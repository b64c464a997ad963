"""`engagement config`: everything is there, no secret is."""

from __future__ import annotations

import json
import re

import pytest

from service.cli import main
from service.settings import environment_names

SECRETS = {
    "DATABASE_URL": "postgresql://owner:p%40ssw0rd@db.example:5433/club?sslpassword=innermost",
    "ANTHROPIC_API_KEY": "key-for-nothing",
    "ENGAGEMENT_JWT_DEV_SECRET": "a secret of some length",
    "ENGAGEMENT_KAFKA_SASL_PASSWORD": "brokers-only",
}
HIDDEN = ("p%40ssw0rd", "p@ssw0rd", "innermost", "key-for-nothing", "a secret of", "brokers-only")


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("form", [[], ["--json"], ["--markdown"]])
def test_all_settings_and_no_secret(
    form: list[str], secrets: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["config", *form]) == 0
    said = capsys.readouterr().out
    for name in environment_names():
        assert name in said
    for hidden in HIDDEN:
        assert hidden not in said


def test_what_is_in_force(
    secrets: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENGAGEMENT_BATCH_MAX_RECORDS", "77")
    assert main.run(["config", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ENGAGEMENT_BATCH_MAX_RECORDS"] == 77
    assert said["ENGAGEMENT_TOPIC_LEVEL"] == "engagement.level.v1"
    assert said["ANTHROPIC_API_KEY"] == "***"
    assert said["DATABASE_URL"] == "postgresql://owner:***@db.example:5433/club?***"
    assert said["ENGAGEMENT_JWT_JWKS_URL"] is None


def test_where_a_value_comes_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENGAGEMENT_API_PORT", "8888")
    assert main.run(["config"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^ENGAGEMENT_API_PORT +8888 +environment", said, re.MULTILINE)
    assert re.search(r"^ENGAGEMENT_API_HOST +127.0.0.1 +default", said, re.MULTILINE)


def test_the_table_of_all_settings_needs_no_right_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENGAGEMENT_NONSENSE", "1")
    assert main.run(["config"]) == 2
    assert main.run(["config", "--markdown"]) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[1].strip(" `") for row in rows] == list(environment_names())
    # Every setting says what it means.
    assert all(len(row[3].strip()) > 5 for row in rows)
