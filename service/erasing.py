"""What an erasure tells whoever asked for it: what is gone, and what only time removes.

Pure; the wording is for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

from service.api.values import ErasureReceipt, Remaining

# Kinds of rows, as the database counts them. Those of the second sort stay, under a random token.
REMOVED: Final = ("attendances", "rsvps", "memberships", "profile_updates", "dead_letters")
PSEUDONYMISED: Final = ("level_changes", "override_actions", "authorships")

# Kafka has no delete for one record in the middle of a topic; these expire by its own retention.
LEVEL_TOPIC: Final = Remaining("level topic", "compaction, after the tombstone that was written")
REMAINING: Final = (
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
    org_id: str,
    user_id: str,
    erased_at: datetime,
    counts: Mapping[str, int],
    *,
    has_tombstone: bool,
) -> ErasureReceipt:
    """The receipt, with the same kinds each time; `counts` are rows that were changed, by kind.

    `has_tombstone`: something was published about the member, and a tombstone after it.
    """
    removed = dict.fromkeys(REMOVED, 0) | dict(counts)
    pseudonymised = {kind: removed.pop(kind, 0) for kind in PSEUDONYMISED}
    return ErasureReceipt(
        org_id,
        user_id,
        erased_at,
        _in_words(removed),
        _in_words(pseudonymised),
        (LEVEL_TOPIC, *REMAINING) if has_tombstone else REMAINING,
    )


def _in_words(counts: Mapping[str, int]) -> dict[str, int]:
    return {kind.replace("_", " "): number for kind, number in counts.items()}
