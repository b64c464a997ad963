"""Write what evaluations came to: override history, level history, messages, standings.

All in the caller's transaction, which holds the members. A history row goes before what it tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from db.evaluation import MESSAGE_COLUMNS, RESULT_COLUMNS, MemberCase
from db.pool import Connection
from db.wakeups import Wakeup
from service.classifier.templates import override_texts
from service.evaluation import Evaluation
from service.messages import Message
from service.standing import Outcome, Publication
from service.texts import Texts

MAX_EVIDENCE_EVENTS: Final = 20

INSERT_OVERRIDE_ACTION: Final = """
INSERT INTO engagement_override_history
    (engagement_id, org_id, user_id, previous_level, new_level, notes, action, performed_by,
     performed_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"""

# Not COPY: PostgreSQL refuses that into tables with row-level security.
_HISTORY: Final = """
INSERT INTO engagement_level_history
    (id, member_id, revision, effective_at, recorded_at, org_id, user_id, from_level, to_level,
     cause, reason, computed_level, source)"""
_OUTBOX: Final = "INSERT INTO outbox (member_id, revision, message_key, level_body, change_body)"
_TELL: Final = f"SELECT pg_notify('{Wakeup.OUTBOX}', '')"

INSERT_PUBLICATIONS: Final = f"""
WITH history AS (
    {_HISTORY}
    SELECT * FROM unnest(
        $6::uuid[], $7::bigint[], $8::bigint[], $9::timestamptz[], $10::timestamptz[], $11::text[],
        $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[])
), published AS (
    {_OUTBOX}
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bytea[], $5::bytea[])
)
{_TELL}"""  # noqa: S608 - made of constants

# Everything at once, the wake-up with it: most pages of a steady stream are small, and what they
# cost is round trips. By the row and not by the column, since the driver looks at each element of
# an array twice as long as it takes to encode it.
WRITE: Final = f"""
WITH result AS MATERIALIZED (
    SELECT * FROM unnest($1::result_row[])
), history AS (
    {_HISTORY}
    SELECT change_id, member_id, revision, effective_at, $4, org_id, user_id, from_level, level,
           cause, reason, computed_level, source
    FROM result WHERE change_id IS NOT NULL
), published AS (
    {_OUTBOX}
    SELECT member_id, revision, message_key, level_body, change_body
    FROM result WHERE message_key IS NOT NULL
), changed AS (
    UPDATE engagement e SET {", ".join(f"{name} = r.{name}" for name in RESULT_COLUMNS[1:])}
    FROM result r WHERE e.member_id = r.member_id
), unchanged AS (
    UPDATE engagement e SET computed_at = greatest(e.computed_at, $4), wake_at = u.wake_at
    FROM unnest($2::bigint[], $3::timestamptz[]) AS u (member_id, wake_at)
    WHERE e.member_id = u.member_id
)
{_TELL} WHERE EXISTS (SELECT FROM result WHERE message_key IS NOT NULL)"""  # noqa: S608 - made of constants
OUTBOX_COLUMNS: Final = 5
HISTORY_COLUMNS: Final = 13


_Publication = tuple[MemberCase, Publication, Message]


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
    changed: list[Result] = []
    unchanged: list[Result] = []
    for result in results:
        (changed if _differs(result) else unchanged).append(result)
    await _insert_override_actions(connection, changed, recorded_at)
    others = [p for r in changed for p in _publications(r, but_last=_tells_state(r))]
    await _insert_publications(connection, others, recorded_at)
    if results:
        await connection.execute(
            WRITE,
            [(*_state(r, explanations), *_message(r)) for r in changed],
            [r.member.member_id for r in unchanged],
            [r.wake_at for r in unchanged],
            recorded_at,
        )


async def write_publications(
    connection: Connection, results: Sequence[Result], recorded_at: datetime
) -> None:
    """Write both histories and the messages, but not the standings."""
    await _insert_override_actions(connection, results, recorded_at)
    publications = [p for r in results for p in _publications(r)]
    await _insert_publications(connection, publications, recorded_at)


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
        or result.member.evidence != "\n".join(_counted_events(result))
    )


def _counted_events(result: Result) -> Sequence[str]:
    """Ids of the latest events that count."""
    member, as_of = result.member, result.evaluation.as_of
    begin = as_of - member.case.thresholds.window
    counted = [event for at, event in member.attended_events if begin < at <= as_of]
    return counted[-MAX_EVIDENCE_EVENTS:]


def _publications(result: Result, *, but_last: bool = False) -> Sequence[_Publication]:
    count = len(result.messages) - but_last
    if count == 0:
        return ()
    pairs = zip(result.outcome.publications, result.messages, strict=True)
    return [(result.member, *pair) for pair in pairs][:count]


def _tells_state(result: Result) -> bool:
    """Whether the last publication is of the very state that is written."""
    publications, standing = result.outcome.publications, result.outcome.standing
    return bool(publications) and publications[-1].published == standing.published


async def _insert_publications(
    connection: Connection, publications: Sequence[_Publication], recorded_at: datetime
) -> None:
    if not publications:
        return
    history: list[tuple[Any, ...]] = []
    outbox: list[tuple[Any, ...]] = []
    for member, publication, message in publications:
        key, level_body, change_body, identity = message
        outbox.append((member.member_id, publication.revision, key, level_body, change_body))
        change, published = publication.change, publication.published
        if change is not None:
            row = (
                identity, member.member_id, publication.revision, change.effective_at, recorded_at,
                *member.subject[:2], change.from_level, change.to_level, change.cause,
                published.reason, published.computed_level, publication.shown_source,
            )  # fmt: skip
            history.append(row)
    await connection.execute(
        INSERT_PUBLICATIONS, *_columns(outbox, OUTBOX_COLUMNS), *_columns(history, HISTORY_COLUMNS)
    )


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) or [()] * count


_NO_MESSAGE: Final = (None,) * len(MESSAGE_COLUMNS)


def _message(result: Result) -> tuple[Any, ...]:
    """The values of `MESSAGE_COLUMNS`."""
    if not _tells_state(result):
        return _NO_MESSAGE
    publication = result.outcome.publications[-1]
    key, level_body, change_body, identity = result.messages[-1]
    change = publication.change
    if change is None:
        return (key, level_body, *_NO_MESSAGE[2:])
    return (
        key, level_body, change_body, identity, *result.member.subject[:2], change.effective_at,
        change.from_level, change.cause, publication.shown_source,
    )  # fmt: skip


def _state(result: Result, explanations: Mapping[Texts, int]) -> tuple[Any, ...]:
    """The values of `RESULT_COLUMNS`."""
    member, evaluation, outcome, _, wake_at = result
    standing = outcome.standing
    published, stored = standing.published, standing.stored_override
    signals, improvement, ruling = published.signals, evaluation.improvement, evaluation.ruling
    override = None if stored is None else stored.override
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
        _counted_events(result), standing.verdict_key,
        None if override is None else override.level,
        None if stored is None else stored.overridden_by,
        None if stored is None else stored.notes,
    )  # fmt: skip
