"""The bodies of what is published: final bytes, made once, repeated unchanged.

`service.records` defines them; this is their fast form (a test holds that both give the same JSON).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from service.classifier.templates import override_texts
from service.records import change_id, message_key
from service.standing import Publication, Published
from service.texts import Texts, TextValues, render_admin, render_user, values_of
from service.thresholds import Thresholds

_encode = msgspec.json.Encoder().encode


class Subject(NamedTuple):
    """Whom a message is about, and the organisation's name for the texts."""

    org_id: str
    user_id: str
    org_name: str


class Message(NamedTuple):
    """One published state: Kafka key, body of the level record (None: tombstone), of the change."""

    key: str
    level_body: bytes | None
    change_body: bytes | None
    change_id: str | None


def shown_texts(published: Published) -> Texts | None:
    """The templates that the world sees: an active override has its own."""
    if published.override is not None:
        override = published.override
        return override_texts(override.level, override.expires_at is not None)
    return published.texts


def message_of(
    subject: Subject,
    publication: Publication,
    thresholds: Thresholds,
    recorded_at: datetime,
) -> Message:
    """The message of a publication."""
    key = message_key(subject.org_id, subject.user_id)
    published, change = publication.published, publication.change
    level_body = None
    if published.level is not None:
        expires_at = None if published.override is None else published.override.expires_at
        values = values_of(publication.evaluation, thresholds, subject.org_name, expires_at)
        # Its clocks start here, also those of a state that was over when it was found.
        computed_at = publication.evaluation.as_of
        level_body = _level_body(subject, publication, values, computed_at)
    if change is None:
        return Message(key, level_body, None, None)
    identity = change_id(key, publication.revision)
    body = _encode(
        {
            "id": identity,
            "org_id": subject.org_id,
            "user_id": subject.user_id,
            "from_level": change.from_level,
            "to_level": change.to_level,
            "cause": change.cause,
            "reason": published.reason,
            "effective_at": change.effective_at,
            "recorded_at": recorded_at,
            "revision": publication.revision,
            "computed_level": published.computed_level,
            "source": publication.shown_source,
        }
    )
    return Message(key, level_body, body, identity)


def _level_body(
    subject: Subject, publication: Publication, values: TextValues, computed_at: datetime
) -> bytes:
    published = publication.published
    texts = shown_texts(published)
    assert texts is not None
    override: dict[str, Any] | None = None
    if published.override is not None:
        override = published.override._asdict()
    return _encode(
        {
            "org_id": subject.org_id,
            "user_id": subject.user_id,
            "level": published.level,
            "computed_level": published.computed_level,
            "previous_level": published.previous_level,
            "level_since": published.level_since,
            "reason": published.reason,
            "source": publication.shown_source,
            "signals": published.signals._asdict(),
            "thresholds_version": published.thresholds_version,
            "activity_window_days": published.activity_window_days,
            "admin_explanation": render_admin(texts.admin, values),
            "user_explanation": render_user(texts.user, values),
            "override": override,
            "next_change_at": published.next_change_at,
            "next_level_change_at": published.next_level_change_at,
            "next_level": published.next_level,
            "model_version": published.model_version,
            "computed_at": computed_at,
            "revision": publication.revision,
        }
    )
