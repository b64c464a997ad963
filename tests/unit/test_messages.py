"""The fast encoder says what the wire models say."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from service.classifier.templates import all_texts
from service.evaluation import Evaluation
from service.levels import Level, Reason
from service.messages import Subject, message_of
from service.records import (
    Cause,
    ChangeRecord,
    LevelRecord,
    Source,
    change_id,
    level_message_id,
    message_key,
)
from service.signals import JoinedAtSource, Signals
from service.standing import NOTHING_PUBLISHED, Change, Publication, Published
from service.thresholds import DEFAULT_THRESHOLDS
from service.timeline import Override

INSTANTS = st.datetimes(timezones=st.just(UTC))
LEVELS = st.sampled_from(Level)
COUNTS = st.integers(0, 2**53)
SIGNALS = st.builds(
    Signals, COUNTS, st.none() | INSTANTS, COUNTS, st.none() | INSTANTS, st.none() | INSTANTS,
    st.none() | INSTANTS, st.none() | st.sampled_from(JoinedAtSource),
)  # fmt: skip
PUBLISHED = st.builds(
    Published,
    level=LEVELS,
    computed_level=LEVELS,
    previous_level=st.none() | LEVELS,
    level_since=INSTANTS,
    reason=st.sampled_from(Reason),
    computed_source=st.sampled_from([Source.RULES, Source.CLAUDE]),
    signals=SIGNALS,
    thresholds_version=COUNTS,
    activity_window_days=COUNTS,
    texts=st.sampled_from(all_texts()),
    override=st.none() | st.builds(Override, LEVELS, INSTANTS, st.none() | INSTANTS),
    next_change_at=st.none() | INSTANTS,
    next_level_change_at=st.none() | INSTANTS,
    next_level=st.none() | LEVELS,
    model_version=st.text(max_size=40),
)
CHANGES = st.builds(
    Change, st.none() | LEVELS, st.none() | LEVELS, st.sampled_from(Cause), INSTANTS
)
PUBLICATIONS = st.builds(
    Publication,
    st.integers(1, 2**53),
    st.just(NOTHING_PUBLISHED) | PUBLISHED,
    st.none() | CHANGES,
    st.none() | st.sampled_from(Source),
    st.just(None),  # comes with the instant
)
SUBJECTS = st.builds(Subject, st.just("riverside-chess"), st.just("ada|1@x.y"), st.text())


def evaluation_of(published: Published, as_of: datetime) -> Evaluation:
    return Evaluation(as_of, published.signals, None, None, None, published.next_level, None)


@settings(deadline=None)
@given(SUBJECTS, PUBLICATIONS, INSTANTS)
def test_bodies_are_what_the_models_make_of_them(
    subject: Subject, publication: Publication, at: datetime
) -> None:
    published, change = publication.published, publication.change
    if published.level is not None and publication.shown_source is None:
        publication = publication._replace(shown_source=Source.RULES)
    publication = publication._replace(evaluation=evaluation_of(published, at))
    message = message_of(subject, publication, DEFAULT_THRESHOLDS, at)
    assert (message.level_body is None) == (published.level is None)
    assert (message.change_body is None) == (change is None)
    if message.level_body is not None:
        level = LevelRecord.model_validate_json(message.level_body)
        assert same(message.level_body, level.model_dump_json())
        assert (level.level, level.signals.events_attended_90d, level.computed_at) == (
            published.level, published.signals.events_attended_90d, at,
        )  # fmt: skip
    if message.change_body is not None:
        record = ChangeRecord.model_validate_json(message.change_body)
        assert same(message.change_body, record.model_dump_json())
        assert (str(record.id), record.revision) == (message.change_id, publication.revision)


def same(ours: bytes, theirs: str) -> bool:
    """The same fields in the same order, with the same values in the same spelling."""
    return json.dumps(json.loads(ours)) == json.dumps(json.loads(theirs))


def test_ids_are_those_of_the_contract() -> None:
    key = message_key("riverside-chess", "ada")
    assert key == "riverside-chess:ada"
    # uuid5 of the URL namespace, worked out by another program.
    assert change_id(key, 3) == "457c2273-8b4e-5be0-b93c-03657a886a5d"
    assert level_message_id(key, 3) == "8879211d-f9eb-5365-8375-ca594fbbcf01"
