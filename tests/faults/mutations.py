"""The product with one of its safeguards taken out: each has to turn a test red."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final


def _replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"the statement has changed, adapt the mutation: {old}"
    return text.replace(old, new)


def without_fence() -> None:
    """A worker moves the offset whoever has claimed the partition since."""
    from db import offsets

    offsets.ADVANCE = _replaced(  # type: ignore[misc]
        offsets.ADVANCE, "AND epoch = $3", "AND ($3::bigint IS NOT NULL)"
    )


def without_start() -> None:
    """A worker moves the offset wherever it stands."""
    from db import offsets

    offsets.ADVANCE = _replaced(  # type: ignore[misc]
        offsets.ADVANCE, "AND next_offset = $4", "AND ($4::bigint IS NOT NULL)"
    )


def without_newest_wins() -> None:
    """Of two records of one natural key the one that comes last wins, within a batch and beyond."""
    from db import intake
    from service.events import InputKind
    from streams import intake as decoding

    ways = intake._WAYS[InputKind.ATTENDANCE]
    merge = _replaced(
        ways.merge,
        """    WHERE (f.recorded_at, f.message_id) < (excluded.recorded_at, excluded.message_id)
       OR ((f.recorded_at, f.message_id) = (excluded.recorded_at, excluded.message_id)
           AND (f.occurred_at, f.status) <> (excluded.occurred_at, excluded.status))
""",
        "",
    )
    merge = _replaced(
        merge,
        """(VALUES ((f.recorded_at, f.message_id, f.occurred_at, f.status)
                < (excluded.recorded_at, excluded.message_id, excluded.occurred_at,
                   excluded.status)))""",
        "(VALUES (true))",
    )
    intake._WAYS[InputKind.ATTENDANCE] = ways._replace(merge=merge)
    natural = decoding.NATURAL[InputKind.ATTENDANCE]

    def last_of(kind: InputKind, rows: object) -> tuple[list[decoding.Row], int]:
        found = {natural.key(row): row for row in rows}  # type: ignore[attr-defined]
        return list(found.values()), 0

    decoding.newest = last_of


MUTATIONS: Final[dict[str, Callable[[], None]]] = {
    "fence": without_fence,
    "start": without_start,
    "newest": without_newest_wins,
}
