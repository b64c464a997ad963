"""Write what evaluations came to: override history, level history, messages, standings.

All in the caller's transaction, which holds the members. A history row goes before what it tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from db.evaluation import RESULT_COLUMNS, MemberCase
from db.pool import Connection
from db.wakeups import Wakeup
from service.classifier.templates import override_texts
from service.evaluation import Evaluation
from service.messages import Message
from service.standing import Outcome
from service.texts import Texts

MAX_EVIDENCE_EVENTS: Final = 20

INSERT_OVERRIDE_ACTION: Final = """
INSERT INTO engagement_override_history
    (engagement_id, org_id, user_id, previous_level, new_level, notes, action, performed_by,
     performed_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"""

# Not COPY: PostgreSQL refuses that into tables with row-level security.
_PUBLISH: Final = """
history AS (
    INSERT INTO engagement_level_history
        (id, member_id, revision, effective_at, recorded_at, org_id, user_id, from_level, to_level,
         cause, reason, computed_level, source)
    SELECT * FROM unnest(
        $6::uuid[], $7::bigint[], $8::bigint[], $9::timestamptz[], $10::timestamptz[], $11::text[],
        $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[])
), published AS (
    INSERT INTO outbox (member_id, revision, message_key, level_body, change_body)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bytea[], $5::bytea[])
)"""
_TELL: Final = f"SELECT pg_notify('{Wakeup.OUTBOX}', '') WHERE cardinality($1::bigint[]) > 0"

INSERT_PUBLICATIONS: Final = f"WITH {_PUBLISH} {_TELL}"

# Everything at once, the wake-up with it: most pages of a steady stream are small, and what they
# cost is round trips.
_UPDATE_CHANGED: Final = f"""
UPDATE engagement e SET {", ".join(f"{name} = s.{name}" for name in RESULT_COLUMNS[1:])}
FROM unnest($19::result_row[]) s WHERE e.member_id = s.member_id"""  # noqa: S608 - made of constants
_UPDATE_UNCHANGED: Final = """
UPDATE engagement e SET computed_at = $22, wake_at = s.wake_at
FROM unnest($20::bigint[], $21::timestamptz[]) AS s (member_id, wake_at)
WHERE e.member_id = s.member_id"""
WRITE: Final = f"""
WITH {_PUBLISH}, changed AS ({_UPDATE_CHANGED}), unchanged AS ({_UPDATE_UNCHANGED})
{_TELL}"""
OUTBOX_COLUMNS: Final = 5
HISTORY_COLUMNS: Final = 13


class Result(NamedTuple):
    """What has to be written about one member."""

    member: MemberCase
    evaluation: Evaluation
    outcome: Outcome
    messages: Sequence[Message]
    wake_at: datetime | None


async def write_results(
    connection: Connection,
    results: Sequence[Result],
    explanations: Mapping[Texts, int],
    recorded_at: datetime,
) -> None:
    """Write standings, histories and messages of a page whose members the transaction holds.

    `explanations`: id of every pair of texts that occurs. Needs a connection prepared by
    `db.evaluation.prepare_connection`.
    """
    changed = [r for r in results if _differs(r)]
    unchanged = [r for r in results if not _differs(r)]
    await _insert_override_actions(connection, changed, recorded_at)
    if results:
        await connection.execute(
            WRITE,
            *_publications(changed, recorded_at),
            [_row(r, explanations) for r in changed],
            [r.member.member_id for r in unchanged],
            [r.wake_at for r in unchanged],
            recorded_at,
        )


async def write_publications(
    connection: Connection, results: Sequence[Result], recorded_at: datetime
) -> None:
    """Write both histories and the messages, but not the standings."""
    await _insert_override_actions(connection, results, recorded_at)
    publications = _publications(results, recorded_at)
    if publications[0]:
        await connection.execute(INSERT_PUBLICATIONS, *publications)


async def _insert_override_actions(
    connection: Connection, results: Sequence[Result], recorded_at: datetime
) -> None:
    for member, _, outcome, *_ in results:
        for action in outcome.override_actions:
            await connection.execute(
                INSERT_OVERRIDE_ACTION,
                member.member_id, member.subject.org_id, member.subject.user_id,
                action.previous_level, action.new_level, action.notes, action.action,
                action.performed_by, recorded_at, action.expires_at,
            )  # fmt: skip


def _differs(result: Result) -> bool:
    before, after = result.member.standing, result.outcome.standing
    return (
        before.computed_at is None
        or before.published != after.published
        or before.stored_override != after.stored_override
        or before.verdict_key != after.verdict_key
        or before.rules_level != after.rules_level
    )


def _publications(results: Sequence[Result], recorded_at: datetime) -> list[Sequence[Any]]:
    """Columns of the messages, then those of the level history."""
    history: list[tuple[Any, ...]] = []
    outbox: list[tuple[Any, ...]] = []
    for member, _, outcome, messages, _ in results:
        org_id, user_id, _ = member.subject
        for publication, message in zip(outcome.publications, messages, strict=True):
            key, level_body, change_body, identity = message
            outbox.append((member.member_id, publication.revision, key, level_body, change_body))
            change, published = publication.change, publication.published
            if change is not None:
                row = (
                    identity, member.member_id, publication.revision, change.effective_at,
                    recorded_at, org_id, user_id, change.from_level, change.to_level,
                    change.cause, published.reason, published.computed_level,
                    publication.shown_source,
                )  # fmt: skip
                history.append(row)
    return [*_columns(outbox, OUTBOX_COLUMNS), *_columns(history, HISTORY_COLUMNS)]


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) or [()] * count


def _row(result: Result, explanations: Mapping[Texts, int]) -> tuple[Any, ...]:
    """The values of `RESULT_COLUMNS`."""
    member, evaluation, outcome, _, wake_at = result
    standing = outcome.standing
    published, stored = standing.published, standing.stored_override
    signals, improvement, ruling = published.signals, evaluation.improvement, evaluation.ruling
    override = None if stored is None else stored.override
    counted = [
        event
        for at, event in member.attended_events
        if evaluation.as_of - member.case.thresholds.window < at <= evaluation.as_of
    ][-MAX_EVIDENCE_EVENTS:]
    return (
        member.member_id, standing.revision, standing.computed_at, wake_at,
        published.next_change_at, published.next_level_change_at,
        published.level_since, signals.last_attended_at, signals.last_rsvp_at,
        signals.profile_updated_at, signals.joined_at,
        None if improvement is None else improvement.before,
        None if override is None else override.overridden_at,
        None if override is None else override.expires_at,
        None if published.texts is None else explanations[published.texts],
        None if override is None
        else explanations[override_texts(override.level, override.expires_at is not None)],
        signals.events_attended_90d, signals.rsvp_count_90d,
        published.thresholds_version, published.activity_window_days,
        None if improvement is None else improvement.events,
        None if ruling is None else ruling.rule,
        published.level, published.computed_level, standing.rules_level,
        published.previous_level, published.next_level, published.reason,
        published.computed_source, signals.joined_at_source, published.model_version,
        None if improvement is None else improvement.level,
        counted, standing.verdict_key,
        None if override is None else override.level,
        None if stored is None else stored.overridden_by,
        None if stored is None else stored.notes,
    )  # fmt: skip
