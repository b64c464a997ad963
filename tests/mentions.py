"""Where in a database a word still is."""

from __future__ import annotations

from db.pool import Connection

SELECT_TABLES = """
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' ORDER BY 1"""


async def tables_that_mention(connection: Connection, word: str) -> list[str]:
    """Every table with the word anywhere in it, bytes and headers included."""
    found = []
    for (table,) in await connection.fetch(SELECT_TABLES):
        text = await connection.fetchval(
            f"SELECT string_agg(t::text || encode(convert_to(t::text, 'UTF8'), 'escape'), ' ') "
            f'FROM "{table}" t'
        )
        hexed = word.encode().hex()
        if text is not None and (word in text or hexed in text):
            found.append(table)
    return found
