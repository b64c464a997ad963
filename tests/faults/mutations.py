"""The product with one of its safeguards taken out: each has to turn a test red."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final


def _replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"the statement has changed, adapt the mutation: {old}"
    return text.replace(old, new)


def without_fence() -> None:
    """A worker moves the offset whoever has claimed the partition since."""
    from db import offsets

    offsets.ADVANCE = _replaced(  # type: ignore[misc]
        offsets.ADVANCE, "AND s.epoch = m.epoch", ""
    )


def without_start() -> None:
    """A worker moves the offset wherever it stands."""
    from db import offsets

    offsets.ADVANCE = _replaced(  # type: ignore[misc]
        offsets.ADVANCE, "AND s.next_offset = m.start", ""
    )


def without_newest_wins() -> None:
    """Of two records of one natural key the one that comes last wins, within a batch and beyond."""
    from db import intake
    from service.events import InputKind
    from streams import intake as decoding

    merge = _replaced(
        intake.MERGES[InputKind.ATTENDANCE],
        """    WHERE (f.recorded_at, f.message_id) < (excluded.recorded_at, excluded.message_id)
       OR ((f.recorded_at, f.message_id) = (excluded.recorded_at, excluded.message_id)
           AND (f.occurred_at, f.status) <> (excluded.occurred_at, excluded.status))
""",
        "    WHERE true\n",
    )
    merge = _replaced(
        merge,
        """(VALUES ((f.recorded_at, f.message_id, f.occurred_at, f.status)
                < (excluded.recorded_at, excluded.message_id, excluded.occurred_at,
                   excluded.status)))""",
        "(VALUES (true))",
    )
    intake.MERGES[InputKind.ATTENDANCE] = merge
    natural = decoding.NATURAL[InputKind.ATTENDANCE]

    def last_of(kind: InputKind, rows: object) -> tuple[list[decoding.Row], int]:
        found = {natural.key(row): row for row in rows}  # type: ignore[attr-defined]
        return list(found.values()), 0

    decoding.newest = last_of


PEEK: Final = """
SELECT member_id, array_agg(DISTINCT cause)
FROM (SELECT unnest(member_ids), cause FROM due_batch
      UNION ALL SELECT member_id, cause FROM due_member) AS d (member_id, cause)
GROUP BY member_id LIMIT $1"""
DROP_BATCHES: Final = "DELETE FROM due_batch WHERE member_ids <@ $1::bigint[]"
DROP_MARKS: Final = "DELETE FROM due_member WHERE member_id = ANY ($1::bigint[])"


def with_marks_last() -> None:
    """The evaluator looks at the marks, reads the facts, and then deletes the members' marks."""
    from db import due
    from db.evaluating import Evaluating

    evaluate_members: Any = Evaluating.evaluate_members

    async def look(connection: Any, limit: int, *, settled: bool = False) -> due.Taken:
        rows = await connection.fetch(PEEK, limit)
        return due.Taken({row[0]: set(row[1]) for row in rows})

    async def evaluate_and_delete(self: Evaluating, connection: Any, causes: due.Causes) -> Any:
        page = await evaluate_members(self, connection, causes)
        for statement in (DROP_BATCHES, DROP_MARKS):
            await connection.execute(statement, list(causes))
        return page

    due.take = look
    Evaluating.evaluate_members = evaluate_and_delete  # type: ignore[assignment, method-assign]


MUTATIONS: Final[dict[str, Callable[[], None]]] = {
    "fence": without_fence,
    "start": without_start,
    "newest": without_newest_wins,
    "marks": with_marks_last,
}
