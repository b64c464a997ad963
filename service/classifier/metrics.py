"""What is counted about Claude; names as everywhere: base units, `_total`, no ids."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram


class ClaudeMetrics:
    """The metrics of this process; use the one instance CLAUDE_METRICS."""

    def __init__(self) -> None:
        seconds = (0.25, 0.5, 1, 2, 3, 5, 8, 13, 21, 34, 45)
        self.calls = Counter(
            "engagement_claude_calls", "Attempts, by what came of them", ["outcome"]
        )
        self.call_seconds = Histogram(
            "engagement_claude_call_seconds", "Time of an attempt", buckets=seconds
        )
        self.tokens = Counter("engagement_claude_tokens", "Tokens billed", ["direction"])
        self.cost_usd = Counter("engagement_claude_cost_usd", "Cost at the list price, US dollars")
        self.verdicts = Counter(
            "engagement_claude_verdicts",
            "Situations settled: agreed with the rules, differed, or left to the rules",
            ["result"],
        )
        self.fallbacks = Counter(
            "engagement_claude_fallbacks", "Times that the rules had to do, by reason", ["reason"]
        )
        for budget in ("budget_calls", "budget_tokens"):
            self.fallbacks.labels(budget)  # shown from zero on: what begins at one is no increase
        self.lookups = Counter(
            "engagement_claude_lookups", "Verdicts looked up for members, by result", ["result"]
        )
        self.waiting = Gauge("engagement_claude_waiting", "Situations that wait for an answer")
        self.breaker_open = Gauge(
            "engagement_claude_breaker_open", "1 while this worker's circuit breaker is open"
        )


CLAUDE_METRICS: Final = ClaudeMetrics()
