"""The rules' own texts: one pair per situation that reads differently, made once at import."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Final

from service.classifier.wording import Count, Shape, Trace, write, write_override
from service.evaluation import Evaluation
from service.levels import Level, Reason, is_fall
from service.signals import JoinedAtSource
from service.texts import Texts

MODEL_VERSION: Final = "rules-1"

# The reasons whose texts tell when the member joined.
_WITH_JOINING: Final = (Reason.RECENTLY_JOINED, Reason.NEVER_ATTENDED)

# On the way of every record: a member of an enumeration costs a lookup in Python each time.
_FREQUENT, _SOME, _SILENT = (
    Reason.FREQUENT_ATTENDANCE,
    Reason.SOME_ATTENDANCE,
    Reason.NO_ACTIVITY,
)
_COUNTS: Final = (Count.NONE, Count.ONE, Count.SEVERAL)
_NONE, _ONE, _SEVERAL = _COUNTS
_ATTENDED: Final = Trace.ATTENDED
_INFERRED: Final = JoinedAtSource.INFERRED
_NEW: Final = Level.NEW


def _shapes() -> Iterator[Shape]:
    """Every shape that `rules_texts` asks for, and a few that cannot come up."""
    booleans = (False, True)
    some, counts, needs = (Count.ONE, Count.SEVERAL), tuple(Count), (Count.ONE, Count.SEVERAL)
    for falls in booleans:
        yield Shape(Reason.FREQUENT_ATTENDANCE, Count.SEVERAL, falls=falls)
        for events, needed in product(some, needs):
            yield Shape(Reason.SOME_ATTENDANCE, events, needed, falls=falls)
        for needed, inferred, sign in product(needs, booleans, booleans):
            for events in counts:
                yield Shape(Reason.RECENTLY_JOINED, events, needed, inferred, sign, falls)
            yield Shape(Reason.NEVER_ATTENDED, Count.NONE, needed, inferred, sign, falls)
        for events, needed, sign in product(counts, needs, booleans):
            yield Shape(Reason.LAPSED, events, needed, sign=sign, falls=falls)
    for needed, trace in product(needs, Trace):
        yield Shape(Reason.NO_ACTIVITY, needed=needed, trace=trace)


def _written() -> dict[Shape, Texts]:
    """Equal pairs are one object, so that identity may stand for equality."""
    interned: dict[Texts, Texts] = {}
    written = {}
    for shape in _shapes():
        texts = write(shape)
        written[shape] = interned.setdefault(texts, texts)
    return written


# Looked up by plain tuples: equal to the named ones, and cheaper to make.
_TEXTS: Final[dict[tuple[object, ...], Texts]] = {tuple(s): t for s, t in _written().items()}


def rules_texts(evaluation: Evaluation) -> Texts:
    """The pair for a scored member; the same object for the same shape of situation.

    Raises ValueError for a member who is not scored.
    """
    if evaluation.ruling is None:
        raise ValueError("a member who is not scored has no texts")
    _, level, reason = evaluation.ruling
    events, last_attended_at, _, last_rsvp_at, _, _, joined_at_source = evaluation.signals
    if reason is _SILENT:
        trace = _trace(evaluation)
        return _TEXTS[reason, _NONE, _needed(evaluation), False, False, False, trace]
    falls = _falls(level, evaluation.next_level)
    if reason is _FREQUENT:
        return _TEXTS[reason, _SEVERAL, _NONE, False, False, falls, _ATTENDED]
    inferred = joined_at_source is _INFERRED and reason in _WITH_JOINING
    sign = (
        last_rsvp_at is not None
        and (last_attended_at is None or last_rsvp_at > last_attended_at)
        and reason is not _SOME
    )
    count = _count(events)
    return _TEXTS[reason, count, _needed(evaluation), inferred, sign, falls, _ATTENDED]


def _count(number: int) -> Count:
    return _COUNTS[number] if number < _SEVERAL else _SEVERAL


def _needed(evaluation: Evaluation) -> Count:
    improvement = evaluation.improvement
    return _ONE if improvement is None or improvement.events == 1 else _SEVERAL


def _falls(level: Level, next_level: Level | None) -> bool:
    if next_level is None or next_level is level:
        return False
    return level is _NEW or is_fall(level, next_level)


def _trace(evaluation: Evaluation) -> Trace:
    _, last_attended_at, _, last_rsvp_at, profile_updated_at, joined_at, _ = evaluation.signals
    signs = [at for at in (last_rsvp_at, profile_updated_at) if at is not None]
    if last_attended_at is not None:
        later = [at for at in (*signs, joined_at) if at is not None and at > last_attended_at]
        return Trace.ATTENDED_THEN_SIGN if later else Trace.ATTENDED
    return Trace.SIGN if any(joined_at is None or at >= joined_at for at in signs) else Trace.JOINED


_OVERRIDE_TEXTS: Final = {
    (level, expires): write_override(level, expires) for level in Level for expires in (False, True)
}


def override_texts(level: Level, expires: bool) -> Texts:
    """The pair that is shown while an administrator's level is in force."""
    return _OVERRIDE_TEXTS[level, expires]


def all_texts() -> list[Texts]:
    """Every pair of this release, each once."""
    return list(dict.fromkeys([*_TEXTS.values(), *_OVERRIDE_TEXTS.values()]))
