"""What an erasure tells whoever asked for it: what is gone, and what only time removes.

Pure; the wording is for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

from service.api.values import ErasureReceipt, Remaining

# Kafka has no delete for one record in the middle of a topic; these expire by its own retention.
REMAINING: Final = (
    Remaining("level topic", "compaction, after the tombstone that was written"),
    Remaining("change topic", "its retention time"),
    Remaining("dead-letter topic", "its retention time"),
    Remaining("input topics", "their retention time, or compaction"),
    Remaining("backups of the database", "their own retention time"),
)


class Erased(NamedTuple):
    """`was_known`: something about this person was known here, or was erased before."""

    was_known: bool
    receipt: ErasureReceipt


def receipt_of(
    org_id: str, user_id: str, erased_at: datetime, removed: Mapping[str, int]
) -> ErasureReceipt:
    """The receipt; `removed` counts rows by kind."""
    return ErasureReceipt(
        org_id, user_id, erased_at, {kind.replace("_", " "): n for kind, n in removed.items()},
        REMAINING,
    )  # fmt: skip
