"""Pairs of texts with placeholders, each stored once."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Final

import asyncpg

from service.texts import Texts

SELECT_BY_DIGEST: Final = """
SELECT digest, explanation_id FROM explanation WHERE digest = ANY ($1::bytea[])"""
INSERT: Final = """
INSERT INTO explanation (digest, admin_template, user_template)
SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[])
ON CONFLICT (digest) DO NOTHING"""


def digest(texts: Texts) -> bytes:
    """What identifies a pair; NUL cannot be part of a text."""
    return hashlib.sha256(f"{texts.admin}\0{texts.user}".encode()).digest()


async def explanation_ids(
    connection: asyncpg.Connection, texts: Collection[Texts]
) -> dict[Texts, int]:
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


async def _select(connection: asyncpg.Connection, digests: Collection[bytes]) -> dict[bytes, int]:
    rows = await connection.fetch(SELECT_BY_DIGEST, list(digests))
    return {row["digest"]: row["explanation_id"] for row in rows}
