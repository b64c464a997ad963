"""Pairs of texts with placeholders, each stored once."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Final

from db.pool import Connection
from service.texts import Texts

SELECT_BY_DIGEST: Final = """
SELECT digest, explanation_id FROM explanation WHERE digest = ANY ($1::bytea[])"""
SELECT_BY_ID: Final = """
SELECT explanation_id, admin_template, user_template FROM explanation
WHERE explanation_id = ANY ($1::bigint[])"""
INSERT: Final = """
INSERT INTO explanation (digest, admin_template, user_template)
SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[])
ON CONFLICT (digest) DO NOTHING"""

PASSES: Final = 5


def digest(texts: Texts) -> bytes:
    """What identifies a pair; NUL cannot be part of a text."""
    return hashlib.sha256(f"{texts.admin}\0{texts.user}".encode()).digest()


async def explanation_ids(connection: Connection, texts: Collection[Texts]) -> dict[Texts, int]:
    """The id of every pair; stores those that are new. Idempotent, at most three statements.

    Runs in the caller's transaction (READ COMMITTED): keep the ids only once it is committed.
    """
    wanted = {digest(pair): pair for pair in texts}
    found = await _select(connection, wanted)
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        await connection.execute(
            INSERT,
            missing,
            [wanted[key].admin for key in missing],
            [wanted[key].user for key in missing],
        )
        # A statement of its own sees what another process stored meanwhile.
        found |= await _select(connection, missing)
    return {pair: found[key] for key, pair in wanted.items()}


async def _select(connection: Connection, digests: Collection[bytes]) -> dict[bytes, int]:
    rows = await connection.fetch(SELECT_BY_DIGEST, list(digests))
    return {row["digest"]: row["explanation_id"] for row in rows}


class ExplanationCache:
    """Pairs of texts by id and ids by pair. They never change, but a server may come to lack some.

    After a crash, or as a standby in another's place: so all is forgotten with a new connection.
    """

    def __init__(self) -> None:
        self._texts: dict[int, Texts] = {}
        self._ids: dict[Texts, int] = {}

    def texts(self, explanation_id: int) -> Texts:
        """The pair behind an id that `load` or `ids` has seen."""
        return self._texts[explanation_id]

    async def load(self, connection: Connection, explanation_ids_wanted: Collection[int]) -> None:
        """Make `texts` know these ids, until the caller waits for something else."""
        for _ in range(PASSES):
            missing = [i for i in explanation_ids_wanted if i not in self._texts]
            if not missing:
                return
            for number, admin, user in await connection.fetch(SELECT_BY_ID, missing):
                self._remember(number, Texts(admin, user))
            # And look again: everything may have been forgotten meanwhile.

    def forget(self) -> None:
        """Drop everything: for each new connection, which may lead to another server."""
        self._texts, self._ids = {}, {}

    async def ids(self, connection: Connection, wanted: Collection[Texts]) -> dict[Texts, int]:
        """Ids of these pairs, stored where they are new.

        New ones are not remembered, since the caller's transaction may still roll back.
        """
        known = {pair: self._ids[pair] for pair in wanted if pair in self._ids}
        missing = [pair for pair in wanted if pair not in known]
        return known | (await explanation_ids(connection, missing) if missing else {})

    def _remember(self, number: int, pair: Texts) -> None:
        self._texts[number] = pair
        self._ids.setdefault(pair, number)
