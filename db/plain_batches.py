"""Apply batches with nothing but rows in one round trip: nearly all there are.

A transaction of `offsets.advance`, `MemberIds` and `intake.apply_rows` takes seven. Of a small
batch each costs both sides more than what there is to do; under a backlog each waits until the
worker is done with what it decodes. So each connection has a function for every kind of record, of
the very same statements, but for the merge, which counts on nobody else adding the same rows. It
serves what is expected only: whenever something else turns out it raises, nothing has happened, and
the caller goes step by step, which knows what to do.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from db import intake, member_ids, offsets, packing
from db.intake import Applied
from db.member_ids import Key, MemberIds, latest_of_unknown
from db.offsets import Move
from db.pool import Connection
from service.events import InputKind

# What the statements take, in their order, then what is compared.
_MOVES: Final = ("text", "int", "bigint", "bigint", "bigint", "int", "bigint", "boolean")
_PEOPLE: Final = ("text", "text", "bytea")
_FUNCTION: Final = """
CREATE OR REPLACE FUNCTION {name}({parameters}) RETURNS TABLE
    (moment timestamptz, written bigint, clashes bigint, marked bigint, made bigint[])
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
DECLARE
    moved bigint;
    people integer;
BEGIN
    WITH advanced (at) AS ({advance})
    SELECT count(*), min(at) INTO moved, moment FROM advanced;
    IF moved <> cardinality(move_1) THEN
        RAISE EXCEPTION 'a partition stands elsewhere, or is another worker''s';
    ELSIF moment + max_skew < latest_accepted THEN
        RAISE EXCEPTION 'the clock is not where it was taken to be';
    ELSIF ({hold}) <> member_epoch THEN
        RAISE EXCEPTION 'what is remembered of members is of another epoch';
    END IF;
    {resolve}
    {merge} INTO written, clashes, marked;
    RETURN NEXT;
END $body$"""
_RESOLVE: Final = f"""
    people := length(person_3) / 8;
    IF people > 0 THEN
        -- Once more sees whom others were adding: it has waited for them.
        FOR attempt IN 1..2 LOOP
            {{resolving}}
            SELECT {member_ids.MADE} INTO made FROM {member_ids.PLAIN};
            EXIT WHEN cardinality(made) = people;
        END LOOP;
        IF cardinality(made) IS DISTINCT FROM people THEN
            RAISE EXCEPTION 'somebody was erased';
        END IF;
        row_1 := (
            SELECT string_agg(int8send(CASE WHEN m < 0 THEN made[-m] ELSE m END), '' ORDER BY at)
            FROM {packing.positions("row_1")} AS r (at),
                 LATERAL (SELECT {packing.number("row_1")} AS m) AS n);
    END IF;"""  # noqa: S608 - made of constants


class Committed(NamedTuple):
    """What was applied, and the transaction's instant."""

    applied: Applied
    now: datetime


def preparing(ids: MemberIds) -> Callable[[Connection], Awaitable[None]]:
    """`prepare_connection` for a pool: each new connection has `ids` forget, too."""

    async def prepare(connection: Connection) -> None:
        await ids.renew(connection)
        await prepare_connection(connection)

    return prepare


async def prepare_connection(connection: Connection) -> None:
    """Make a new connection ready for `apply_rows` and `apply_plain`."""
    await intake.prepare_connection(connection)
    await connection.execute(";".join(map(_create, InputKind)))


async def apply_plain(
    connection: Connection,
    kind: InputKind,
    moves: Sequence[Move],
    rows: Sequence[intake.Row],
    ids: MemberIds,
    *,
    latest_accepted: datetime,
    max_skew: timedelta,
) -> Committed:
    """Apply rows of different partitions and commit, outside any transaction.

    `latest_accepted`: the latest instant in a row, which the clock and `max_skew` must allow.
    Raises asyncpg.RaiseError or UniqueViolationError where it has to go step by step; then nothing
    has happened.
    """
    unknown: dict[Key, datetime] = {}
    columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True))
    if rows and kind in intake.ABOUT_MEMBERS:
        columns, unknown = _by_member_id(columns, ids)
    epoch = ids.epoch
    row = await connection.fetchrow(
        _CALLS[kind],
        *offsets.columns_of(moves),
        *member_ids.parameters(unknown),
        *intake.parameters(kind, columns or [()] * len(intake.COLUMNS[kind])),
        *(latest_accepted, max_skew, epoch),
    )
    assert row is not None
    now, written, clashes, marked, made = row
    members = dict(zip(unknown, made or (), strict=True))
    return Committed(Applied(written, clashes, marked, members, epoch), now)


def _by_member_id(
    columns: Sequence[Sequence[Any]], ids: MemberIds
) -> tuple[Sequence[Sequence[Any]], dict[Key, datetime]]:
    """Columns with member_id in place of the two ids, and who is not known, with the latest.

    The unknown, in order, have the numbers -1, -2 and so on.
    """
    message_ids, org_ids, user_ids, *values = columns
    keys = list(zip(org_ids, user_ids, strict=True))
    found = ids.known(keys)
    if None not in found:
        return [found, message_ids, *values], {}
    unknown = latest_of_unknown(keys, found, values[-1])
    numbers = {key: -number for number, key in enumerate(unknown, 1)}
    members = [
        numbers[key] if member_id is None else member_id
        for key, member_id in zip(keys, found, strict=True)
    ]
    return [members, message_ids, *values], unknown


def _name(kind: InputKind) -> str:
    return f"pg_temp.apply_plain_{kind.value.replace('-', '_')}"


def _create(kind: InputKind) -> str:
    parameters = [
        *(f"move_{n} {type_}[]" for n, type_ in enumerate(_MOVES, 1)),
        *(f"person_{n} {type_}" for n, type_ in enumerate(_PEOPLE, 1)),
        *(f"row_{n} {type_}" for n, type_ in enumerate(intake.parameter_types(kind), 1)),
        *("latest_accepted timestamptz", "max_skew interval", "member_epoch bigint"),
    ]
    resolving = _named(member_ids.RESOLVING, "person")
    merge = _named(intake.unshared(intake.MERGES[kind]), "row")
    return _FUNCTION.format(
        name=_name(kind),
        parameters=", ".join(parameters),
        advance=_named(offsets.ADVANCE, "move"),
        hold=member_ids.BEGIN,
        resolve=_RESOLVE.format(resolving=resolving) if kind in intake.ABOUT_MEMBERS else "",
        merge=merge,
    )


def _named(statement: str, what: str) -> str:
    """A statement with names for its numbered parameters."""
    return re.sub(r"\$(\d+)", rf"{what}_\1", statement)


def _call(kind: InputKind) -> str:
    count = len(_MOVES) + len(_PEOPLE) + len(intake.parameter_types(kind)) + 3
    arguments = ", ".join(f"${n}" for n in range(1, count + 1))
    return f"SELECT * FROM {_name(kind)}({arguments})"  # noqa: S608 - made of constants


_CALLS: Final = {kind: _call(kind) for kind in InputKind}
