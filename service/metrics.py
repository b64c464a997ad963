"""Every metric: its name, kind, unit and meaning, in one place.

Names follow Prometheus: base units, `_total` for counters, few label values (never ids).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from service.errors import DeadLetterCode


class Metrics:
    """The metrics of this process; use the one instance METRICS."""

    def __init__(self) -> None:
        seconds = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
        self.records = Counter(
            "engagement_records", "Input records by topic and outcome", ["topic", "outcome"]
        )
        self.batch_seconds = Histogram(
            "engagement_batch_seconds", "Time to apply one batch", ["topic"], buckets=seconds
        )
        self.clashes = Counter(
            "engagement_clashes", "Records of equal version but other content", ["topic"]
        )
        self.dead_letters = Counter(
            "engagement_dead_letters", "Records that can never be applied", ["topic", "code"]
        )
        self.partitions_stopped = Gauge(
            "engagement_partitions_stopped", "Partitions stopped at the dead-letter limit"
        )
        self.partitions_unclaimed = Gauge(
            "engagement_partitions_unclaimed", "Assigned partitions that are not claimed yet"
        )
        self.lag = Gauge(
            "engagement_lag_records", "Records not applied yet", ["topic", "partition"]
        )
        self.incidents = Counter(
            "engagement_incidents",
            "Partitions found to lack records that we need, to be made anew or unreadable, by kind",
            ["kind"],
        )
        self.intake_retries = Counter("engagement_intake_retries", "Batches tried again")
        self.claims_lost = Counter("engagement_claims_lost", "Claims lost to another worker")
        self.evaluated = Counter("engagement_evaluated_members", "Members evaluated")
        self.evaluation_seconds = Histogram(
            "engagement_evaluation_seconds", "Time to evaluate one page of members", buckets=seconds
        )
        self.evaluation_retries = Counter("engagement_evaluation_retries", "Pages tried again")
        self.set_aside = Counter(
            "engagement_members_set_aside", "Members whose evaluation failed, to be tried later"
        )
        self.changes = Counter("engagement_level_changes", "Changes of level", ["cause"])
        self.due_members = Gauge("engagement_due_members", "Marks that wait to be evaluated")
        self.due_age_seconds = Gauge("engagement_due_age_seconds", "Age of the oldest mark")
        self.published = Counter("engagement_published", "Records published", ["topic"])
        self.outbox_rows = Gauge("engagement_outbox_rows", "Published states that wait to be sent")
        self.outbox_age_seconds = Gauge(
            "engagement_outbox_age_seconds", "Age of the oldest of them"
        )
        self.relay_errors = Counter("engagement_relay_errors", "Attempts to publish that failed")
        self.recomputed = Counter(
            "engagement_recomputed_members", "Members recomputed by the daily run"
        )
        self.recompute_changes = Counter(
            "engagement_recompute_changes", "Changes of level written by the daily run"
        )
        self.recompute_failed = Counter(
            "engagement_recompute_failed_members", "Members that the daily run gave up"
        )
        self.recompute_retries = Counter(
            "engagement_recompute_retries", "Pieces of the daily run tried again"
        )
        self.recompute_ended_at = Gauge(
            "engagement_recompute_ended_timestamp_seconds", "When a daily run was ended here last"
        )
        self.recompute_seconds = Gauge(
            "engagement_recompute_seconds", "How long the daily run took that was ended here last"
        )
        self.recompute_slot = Gauge(
            "engagement_recompute_slot_timestamp_seconds", "Slot of the latest daily run"
        )
        self.recompute_open_pages = Gauge(
            "engagement_recompute_open_pages", "Pages of the latest daily run that are not done"
        )
        self.missed_by_clock = Counter(
            "engagement_missed_by_clock",
            "Defect: members found to have changed by the daily run, of whom nobody knew",
        )
        self.overrides_active = Gauge("engagement_overrides_active", "Overrides in effect")
        self.housekept = Counter(
            "engagement_housekept_rows", "Rows removed when their time was over", ["table"]
        )
        self.http_requests = Counter(
            "engagement_http_requests", "HTTP requests", ["method", "route", "status"]
        )
        self.http_seconds = Histogram(
            "engagement_http_seconds", "Time to answer", ["method", "route"], buckets=seconds
        )

    def announce(self, topics: Iterable[str]) -> None:
        """Show what is counted per input topic from zero on: what begins at one is no increase."""
        for topic in topics:
            for outcome in ("applied", "refused"):
                self.records.labels(topic, outcome)
            for code in DeadLetterCode:
                self.dead_letters.labels(topic, code.value)
        for kind in ("topic_shorter", "topic_changed", "records_lost", "records_unreadable"):
            self.incidents.labels(kind)


METRICS: Final = Metrics()
