"""Every alert fires when it should and stays quiet when it should; every metric named exists."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, NamedTuple

import pytest
import yaml

from service.cli.documents import DOCS
from service.cli.parts import metrics
from tests.fences import anchor_of, headings_of
from tests.promql import Selector, parse, seconds, selectors
from tests.promql_values import Labels, Samples, Value, evaluate

MINUTE_S = 60.0
DAY_S = 86_400.0
# Made by Prometheus itself.
FOREIGN_METRICS = {"up": {"job", "instance"}}
FOREIGN_LABELS = {"job", "instance", "le"}


def rules() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load((DOCS / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


# ------------------------------------------------------------------------------------ what exists


@cache
def known() -> dict[str, set[str]]:
    """Every series that is scraped: its name and labels."""
    found = dict(FOREIGN_METRICS)
    for name, kind, labels, _ in metrics():
        if kind == "histogram":
            for part in ("_sum", "_count"):
                found[name + part] = set(labels) | FOREIGN_LABELS
            found[name + "_bucket"] = set(labels) | FOREIGN_LABELS
        else:
            found[name] = set(labels) | FOREIGN_LABELS
    return found


def check_expression(text: str) -> None:
    """It parses, and all its metrics and labels exist."""
    used = list(selectors(parse(text)))
    assert used or text.startswith("time()")
    for selector, by in used:
        assert selector.name in known(), selector.name
        labels = {matcher.label for matcher in selector.matchers} | set(by)
        assert labels <= known()[selector.name], (selector.name, labels)
        check_kind(selector)


def check_kind(selector: Selector) -> None:
    """Counters are looked at over a range, gauges at once."""
    grows = selector.name.endswith(("_total", "_bucket", "_count", "_sum"))
    assert grows == bool(selector.range_s), selector


@pytest.mark.parametrize("alert", rules())
def test_an_alert_is_complete(alert: str) -> None:
    rule = rules()[alert]
    assert alert.startswith("Engagement")
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    check_expression(rule["expr"])
    assert rule["annotations"]["summary"].endswith(".")
    page, anchor = rule["annotations"]["runbook"].split("#")
    assert anchor in {anchor_of(heading) for heading in headings_of(DOCS / page)}


# ---------------------------------------------------------------------------------- what it does


class Case(NamedTuple):
    """Series in promtool's notation that make an alert fire, and others that do not.

    One sample a minute; `after` is when it is looked at, in minutes.
    """

    fires: dict[str, str]
    quiet: dict[str, str]
    after: int = 60


WORKER, API = 'up{job="engagement-worker",instance="w"}', 'up{job="engagement-api",instance="a"}'
LAG = 'engagement_lag_records{topic="t",partition="0"}'
APPLIED = 'engagement_records_total{topic="t",outcome="applied"}'
LETTERS = 'engagement_dead_letters_total{topic="t",code="schema"}'
BUDGET = 'engagement_claude_fallbacks_total{reason="budget_calls"}'
TIMEOUT = 'engagement_claude_fallbacks_total{reason="timeout"}'
REFUSED = 'engagement_claude_verdicts_total{result="refused"}'
AGREED = 'engagement_claude_verdicts_total{result="agreed"}'
GOOD = 'engagement_http_requests_total{method="GET",route="/r",status="200"}'
BAD = 'engagement_http_requests_total{method="GET",route="/r",status="503"}'
FAST = 'engagement_http_seconds_bucket{method="GET",route="/r",le="0.1"}'
SLOW = 'engagement_http_seconds_bucket{method="GET",route="/r",le="5"}'
ALL = 'engagement_http_seconds_bucket{method="GET",route="/r",le="+Inf"}'
SLOT = "engagement_recompute_slot_timestamp_seconds"

CASES = {
    "EngagementWorkersDown": Case({WORKER: "1x50 0x10"}, {WORKER: "1x50 0x1 1x10"}),
    "EngagementApiDown": Case({API: "1x30"}, {API: "1x60"}),
    "EngagementPartitionStopped": Case(
        {"engagement_partitions_stopped": "0x50 1x10"}, {"engagement_partitions_stopped": "0x60"}
    ),
    "EngagementRecordsLost": Case(
        {'engagement_incidents_total{kind="records_lost"}': "0x40 1x20"},
        {'engagement_incidents_total{kind="records_lost"}': "1x60"},
    ),
    "EngagementIntakeStuck": Case(
        {LAG: "500x60", APPLIED: "70x60"}, {LAG: "500x60", APPLIED: "0+10x60"}
    ),
    "EngagementLagHigh": Case({LAG: "200000x60"}, {LAG: "200000x10 0x5 200000x45 5000x0"}, 20),
    "EngagementPartitionsUnclaimed": Case(
        {"engagement_partitions_unclaimed": "8x60"},
        {"engagement_partitions_unclaimed": "0x50 8x2 0x8"},
    ),
    "EngagementClaimsLost": Case(
        {"engagement_claims_lost_total": "0+4x60"}, {"engagement_claims_lost_total": "0x50 1+1x4"}
    ),
    "EngagementDeadLetters": Case({LETTERS: "0x55 1x5"}, {LETTERS: "7x60"}),
    "EngagementEvaluationBehind": Case(
        {"engagement_due_age_seconds": "0x40 90x20"}, {"engagement_due_age_seconds": "0x57 90x3"}
    ),
    "EngagementMembersSetAside": Case(
        {"engagement_members_set_aside_total": "0x50 1x10"},
        {"engagement_members_set_aside_total": "3x60"},
    ),
    "EngagementPublishingBehind": Case(
        {"engagement_outbox_age_seconds": "0x50 70x10"}, {"engagement_outbox_age_seconds": "1x60"}
    ),
    "EngagementRelayFailing": Case(
        {"engagement_relay_errors_total": "0+1x60"},
        {"engagement_relay_errors_total": "0+1x30 31x30"},
    ),
    "EngagementDailyRunMissing": Case({SLOT: "600x1680"}, {SLOT: "600x1440 87000x240"}, 1600),
    "EngagementDailyRunLong": Case(
        {"engagement_recompute_open_pages": "9x300"},
        {"engagement_recompute_open_pages": "9x100 0x200"},
        250,
    ),
    "EngagementDailyRunGaveUp": Case(
        {"engagement_recompute_failed_members_total": "0x50 2x10"},
        {"engagement_recompute_failed_members_total": "2x60"},
    ),
    "EngagementMissedByClock": Case(
        {"engagement_missed_by_clock_total": "0x50 1x10"},
        {"engagement_missed_by_clock_total": "0x60"},
    ),
    "EngagementClaudeDown": Case(
        {"engagement_claude_breaker_open": "1x60"},
        {"engagement_claude_breaker_open": "1x35 0x5 1x20"},
    ),
    "EngagementClaudeBudget": Case(
        {BUDGET: "0x30 1x30"}, {BUDGET: "0x60", TIMEOUT: "0+3x60"}
    ),
    "EngagementClaudeAnswersRefused": Case(
        {REFUSED: "0+1x60", AGREED: "0+1x60"}, {REFUSED: "0+1x60", AGREED: "0+9x60"}
    ),
    "EngagementApiErrors": Case(
        {GOOD: "0+90x60", BAD: "0+10x60"}, {GOOD: "0+99x60", BAD: "0+1x60"}
    ),
    "EngagementApiSlow": Case(
        {FAST: "0+90x60", SLOW: "0+100x60", ALL: "0+100x60"},
        {FAST: "0+100x60", SLOW: "0+100x60", ALL: "0+100x60"},
    ),
}  # fmt: skip


def series(text: str) -> Labels:
    """`name{label="value"}` as labels."""
    match = re.fullmatch(r"(\w+)(?:\{(.*)\})?", text)
    assert match
    pairs = re.findall(r'(\w+)="([^"]*)"', match[2] or "")
    return frozenset([("__name__", match[1]), *pairs])


def values(text: str) -> list[float]:
    """promtool's notation: `a+bxn`, and `axn` for a value that stays; both ends included."""
    found: list[float] = []
    for part in text.split():
        start, step, count = re.fullmatch(r"(\d+)(?:\+(\d+))?x(\d+)", part).groups()  # type: ignore[union-attr]
        found += [float(start) + i * float(step or 0) for i in range(int(count) + 1)]
    return found


def samples_of(given: dict[str, str]) -> Samples:
    return {
        series(name): [(i * MINUTE_S, value) for i, value in enumerate(values(text))]
        for name, text in given.items()
    }


def is_firing(rule: dict[str, Any], samples: Samples, after: int) -> bool:
    """Whether the expression has held for as long as the rule says."""
    expression, waits_s = parse(rule["expr"]), seconds(rule.get("for", "0s"))
    for minutes in range(after - round(waits_s / MINUTE_S), after + 1):
        result: Value = evaluate(expression, samples, minutes * MINUTE_S)
        if not result:
            return False
    return True


def test_every_alert_has_a_case() -> None:
    assert CASES.keys() == rules().keys()


@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_and_is_quiet(alert: str) -> None:
    case, rule = CASES[alert], rules()[alert]
    assert is_firing(rule, samples_of(case.fires), case.after)
    assert not is_firing(rule, samples_of(case.quiet), case.after)


@pytest.mark.parametrize("alert", CASES)
def test_nothing_fires_on_a_fresh_installation(alert: str) -> None:
    """All that a new worker and API show: zeros, and both are up."""
    given = {WORKER: "1x120", API: "1x120"}
    for name, kind, labels, _ in metrics():
        if kind != "histogram":
            shown = ",".join(f'{label}="x"' for label in labels)
            given[f"{name}{{{shown}}}"] = "0x120"
    assert not is_firing(rules()[alert], samples_of(given), 120)


# ------------------------------------------------------------------------------------- dashboard


def panels() -> list[dict[str, Any]]:
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())
    found: list[dict[str, Any]] = dashboard["panels"]
    return found


def test_the_dashboard_shows_what_exists() -> None:
    shown = 0
    for panel in panels():
        for target in panel.get("targets", ()):
            check_expression(target["expr"])
            assert target["legendFormat"]
            shown += 1
    assert shown > 25


def test_the_panels_have_places_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_metric_is_on_the_dashboard_or_in_an_alert() -> None:
    texts = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    texts += [rule["expr"] for rule in rules().values()]
    used = " ".join(texts)
    unused = {name for name, _, _, _ in metrics() if name not in used}
    assert not unused


def test_the_evaluator_knows_its_arithmetic() -> None:
    samples = samples_of({'a_total{x="1"}': "0+6x60", 'a_total{x="2"}': "0+60x20 0+60x39"})

    def value(text: str) -> Value:
        return evaluate(parse(text), samples, 60 * MINUTE_S)

    assert value("1 + 2 * 3 - 4 / 2") == 5
    assert value('sum(rate(a_total{x="1"}[5m]))') == {frozenset(): 0.1}
    assert value('sum(increase(a_total{x=~"2"}[1h]))') == {frozenset(): 1200 + 2340 - 60}
    assert value("sum by (x) (a_total) > 1000") == {frozenset({("x", "2")}): 2340}
    assert value("a_total > 1 unless a_total > 1000") == {frozenset({("x", "1")}): 360}
    assert value("absent(b_total)") == {frozenset(): 1}
    assert value("count(a_total)") == {frozenset(): 2}
    assert value("time() - 600") == 3000
    for wrong in ("sum(", "a_total[5x]", "label_replace(a)", "a b", "{}", "a_total[5]"):
        with pytest.raises((ValueError, IndexError)):
            parse(wrong)
