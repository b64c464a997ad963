from __future__ import annotations

from decimal import Decimal

import pytest

from service.classifier.asking import Usage
from service.classifier.choice import check, claude_of, uses_claude
from service.classifier.prices import cost_usd, price_of
from service.errors import SettingsError
from service.settings import load_settings
from streams.app import build

KEY = {"ANTHROPIC_API_KEY": "no-real-key"}


@pytest.mark.parametrize(
    ("environment", "used"),
    [
        ({}, False),
        (KEY, True),
        ({"ENGAGEMENT_CLASSIFIER": "rules", **KEY}, False),
        ({"ENGAGEMENT_CLASSIFIER": "claude", **KEY}, True),
        ({"ENGAGEMENT_CLASSIFIER": "auto"}, False),
    ],
)
def test_claude_is_used_where_there_is_a_key(environment: dict[str, str], used: bool) -> None:
    assert uses_claude(load_settings(environment)) is used


def test_claude_without_a_key_is_refused() -> None:
    with pytest.raises(SettingsError, match="ANTHROPIC_API_KEY"):
        uses_claude(load_settings({"ENGAGEMENT_CLASSIFIER": "claude"}))
    with pytest.raises(SettingsError, match="ANTHROPIC_API_KEY"):
        claude_of(load_settings({}))


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"ENGAGEMENT_CLASSIFIER": "claude"}, "ANTHROPIC_API_KEY"),
        ({**KEY, "ANTHROPIC_BASE_URL": "nonsense"}, "ANTHROPIC_BASE_URL"),
        ({**KEY, "ANTHROPIC_BASE_URL": "http://api.example"}, "ANTHROPIC_BASE_URL"),
    ],
)
def test_what_claude_would_be_refused_for_stops_a_worker_at_its_start(
    environment: dict[str, str], named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        check(load_settings(environment))
    with pytest.raises(SettingsError, match=named):
        build(load_settings(environment))


def test_what_is_fine_for_claude() -> None:
    for environment in ({}, KEY, {**KEY, "ANTHROPIC_BASE_URL": "http://127.0.0.1:1"}):
        check(load_settings(environment))
    # Nobody asks it.
    check(load_settings({**KEY, "ANTHROPIC_BASE_URL": "x", "ENGAGEMENT_CLASSIFIER": "rules"}))


def test_claude_is_the_configured_model() -> None:
    assert claude_of(load_settings(KEY)).model == "claude-haiku-5-5"
    other = load_settings({**KEY, "ENGAGEMENT_MODEL": "claude-haiku-4-5"})
    assert claude_of(other).model == "claude-haiku-4-5"


def test_cost_at_the_list_price() -> None:
    usage = Usage(1_000_000, 100_000)
    assert cost_usd("claude-haiku-5-5", usage) == Decimal("0.15")
    assert cost_usd("claude-haiku-4-5-20251001", usage) == Decimal("1.5")
    assert cost_usd("somebody-elses", usage) == 0
    assert price_of("somebody-elses") is None
