"""An organisation as a whole."""

from __future__ import annotations

from collections.abc import Sequence

from service.api.models.organizations import (
    Example,
    LastRun,
    LevelCount,
    Movement,
    PreviewAnswer,
    SummaryAnswer,
    ThresholdsAnswer,
    ThresholdsItem,
    Transition,
)
from service.api.presenting.evidence import numbers
from service.api.values import (
    Standing,
    Summary,
    ThresholdsPreview,
    ThresholdsVersion,
)
from service.levels import Level


def summary(summary: Summary, org_id: str, standing: Standing) -> SummaryAnswer:
    """The organisation as a whole."""
    run = summary.last_run
    return SummaryAnswer(
        org_id=org_id,
        name=standing.org_name,
        status=standing.org_status,
        as_of=summary.as_of,
        members=sum(summary.levels.values()),
        levels=[LevelCount(level=level, members=summary.levels[level]) for level in Level],
        movements=[
            Movement(day=day, direction=direction, members=members)
            for (day, direction), members in sorted(summary.movements.items())
        ],
        overrides=summary.overrides,
        overrides_expiring_30d=summary.overrides_expiring_30d,
        falls_due_30d=summary.falls_due_30d,
        last_run=None if run is None else LastRun(**run._asdict()),
    )


def thresholds_item(version: ThresholdsVersion) -> ThresholdsItem:
    """One version of the thresholds."""
    return ThresholdsItem(
        **numbers(version.thresholds).model_dump(),
        version=version.thresholds.version,
        author=version.author,
        author_name=version.author_name,
        note=version.note,
        created_at=version.created_at,
    )


def thresholds_answer(versions: Sequence[ThresholdsVersion]) -> ThresholdsAnswer:
    """The version in force and those before."""
    items = [thresholds_item(version) for version in versions]
    return ThresholdsAnswer(current=items[0], versions=items)


def preview(preview: ThresholdsPreview) -> PreviewAnswer:
    """What other thresholds would do."""
    matrix = preview.matrix
    return PreviewAnswer(
        base_version=preview.base_version,
        as_of=preview.as_of,
        members=preview.members,
        members_changed=preview.members_changed,
        now=[
            LevelCount(level=level, members=sum(matrix.get((level, to), 0) for to in Level))
            for level in Level
        ],
        then=[
            LevelCount(level=level, members=sum(matrix.get((start, level), 0) for start in Level))
            for level in Level
        ],
        matrix=[
            Transition(from_level=start, to_level=to, members=matrix.get((start, to), 0))
            for start in Level
            for to in Level
        ],
        examples=[Example(**example._asdict()) for example in preview.examples],
        level_records=preview.level_records,
        change_records=preview.change_records,
        claude_calls=preview.claude_calls,
    )
