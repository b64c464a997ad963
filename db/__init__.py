"""Remembers: the only SQL and the only use of asyncpg. One module per table or use."""
