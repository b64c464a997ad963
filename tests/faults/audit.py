"""Every move of an offset as the database saw it: who did it, under which claim.

A trigger that only tests install. `who` is the connection's application_name, which
`tests/faults/worker_main.py` makes different for each worker.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

INSTALL_AUDIT: Final = """
CREATE TABLE test_audit (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    who text NOT NULL DEFAULT current_setting('application_name'),
    topic text NOT NULL, partition int NOT NULL,
    old_next bigint, new_next bigint NOT NULL, old_epoch bigint, new_epoch bigint NOT NULL
);
CREATE FUNCTION test_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO test_audit (topic, partition, old_next, new_next, old_epoch, new_epoch)
    VALUES (NEW.topic, NEW.partition, OLD.next_offset, NEW.next_offset, OLD.epoch, NEW.epoch);
    RETURN NULL;
END
$$;
CREATE TRIGGER test_audit AFTER INSERT OR UPDATE ON stream_offset
    FOR EACH ROW EXECUTE FUNCTION test_audit()"""

SELECT_AUDIT: Final = """
SELECT who, topic, partition, old_next, new_next, old_epoch, new_epoch
FROM test_audit ORDER BY number"""

Row = Mapping[str, Any]


def check_audit(rows: Iterable[Row], *, rewinds: bool = False) -> list[str]:
    """Every move that a partition's rightful owner did not make, and every move backwards.

    `rewinds`: the test recreates a topic, so moves back to its beginning are right.
    """
    owners: dict[tuple[str, int], str] = {}
    problems = []
    parts: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        parts[row["topic"], row["partition"]].append(row)
    for part, moves in parts.items():
        for row in moves:
            name = f"{part[0]}/{part[1]}"
            if row["old_epoch"] is None or row["new_epoch"] > row["old_epoch"]:
                owners[part] = row["who"]
            elif row["who"] != owners[part]:
                problems.append(
                    f"{name} was moved to {row['new_next']} by {row['who']} under epoch "
                    f"{row['new_epoch']}, which belongs to {owners[part]}"
                )
            if row["old_next"] is not None and row["new_next"] < row["old_next"] and not rewinds:
                problems.append(f"{name} went back from {row['old_next']} to {row['new_next']}")
    return problems
