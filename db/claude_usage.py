"""What Claude costs, by day (UTC): budgets are reserved before a call and settled after it.

Whatever a crash leaves reserved stays counted, since the call may have been paid for.
"""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import Any, Final, NamedTuple

from db.pool import Connection
from service.classifier.asking import Usage

OPEN_DAY: Final = """
INSERT INTO claude_usage (day) VALUES ((engagement_now() AT TIME ZONE 'UTC')::date)
ON CONFLICT (day) DO NOTHING"""

# The lock lets one worker reserve at a time, so the limits hold over all workers.
LOCK_DAY: Final = """
SELECT day, calls, reserved_tokens + input_tokens + output_tokens
FROM claude_usage WHERE day = (engagement_now() AT TIME ZONE 'UTC')::date FOR UPDATE"""

RESERVE: Final = """
UPDATE claude_usage SET calls = calls + $2, reserved_tokens = reserved_tokens + $3 WHERE day = $1"""

SETTLE: Final = """
UPDATE claude_usage SET
    reserved_tokens = reserved_tokens - $2, input_tokens = input_tokens + $3,
    output_tokens = output_tokens + $4, cost_usd = cost_usd + $5,
    agreed = agreed + $6, differed = differed + $7
WHERE day = $1"""

COUNT_FALLBACK: Final = """
INSERT INTO claude_fallback AS f (day, reason, count)
VALUES ((engagement_now() AT TIME ZONE 'UTC')::date, $1, 1)
ON CONFLICT (day, reason) DO UPDATE SET count = f.count + 1"""

COUNT_HITS: Final = """
INSERT INTO claude_hit AS h (day, backend, hits)
VALUES ((engagement_now() AT TIME ZONE 'UTC')::date, pg_backend_pid(), $1)
ON CONFLICT (day, backend) DO UPDATE SET hits = h.hits + excluded.hits"""

TOTALS: Final = """
SELECT coalesce(sum(calls), 0), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0),
       coalesce(sum(cost_usd), 0),
       coalesce(sum(hits), 0) + (SELECT coalesce(sum(hits), 0) FROM claude_hit),
       coalesce(sum(agreed), 0), coalesce(sum(differed), 0)
FROM claude_usage"""

FALLBACK_TOTALS: Final = "SELECT reason, sum(count) FROM claude_fallback GROUP BY reason"


class Limits(NamedTuple):
    """What all workers together may spend: calls at once, calls and tokens per day."""

    concurrency: int
    daily_calls: int
    daily_tokens: int


class Reservation(NamedTuple):
    """One call that may be made, counted on `day` with `tokens` until it is settled."""

    day: date
    tokens: int


class Room(NamedTuple):
    """How many calls the day still allows, and which budget says so."""

    day: date
    calls: int
    limited_by: str


class Spent(NamedTuple):
    """What one call came to."""

    usage: Usage
    cost_usd: Decimal


class Totals(NamedTuple):
    """Everything spent since the beginning; the difference of two tells what a run used.

    `hits` are look-ups that found a verdict; `agreed` and `differed` are verdicts with the rules'
    own level and with another one.
    """

    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    hits: int
    agreed: int
    differed: int
    fallbacks: dict[str, int]

    def since(self, earlier: Totals) -> dict[str, Any]:
        """What was spent after `earlier`, fit for a run's summary."""
        fallbacks = {
            reason: count - earlier.fallbacks.get(reason, 0)
            for reason, count in self.fallbacks.items()
        }
        return {
            "claude_calls": self.calls - earlier.calls,
            "claude_input_tokens": self.input_tokens - earlier.input_tokens,
            "claude_output_tokens": self.output_tokens - earlier.output_tokens,
            "claude_cost_usd": float(self.cost_usd - earlier.cost_usd),
            "claude_hits": self.hits - earlier.hits,
            "claude_agreed": self.agreed - earlier.agreed,
            "claude_differed": self.differed - earlier.differed,
            "claude_fallbacks": {reason: n for reason, n in sorted(fallbacks.items()) if n},
        }

    def to_json(self) -> str:
        """One line; `from_json` reads it back."""
        return json.dumps(self._asdict() | {"cost_usd": str(self.cost_usd)})

    @classmethod
    def from_json(cls, text: str) -> Totals:
        """What `to_json` wrote."""
        plain = json.loads(text)
        return cls(**plain | {"cost_usd": Decimal(plain["cost_usd"])})


async def lock_room(connection: Connection, limits: Limits, tokens: int) -> Room:
    """How many calls of `tokens` each today's budgets allow; nobody else reserves meanwhile."""
    await connection.execute(OPEN_DAY)
    row = await connection.fetchrow(LOCK_DAY)
    assert row is not None
    day, calls, used_tokens = row
    by_calls = max(0, limits.daily_calls - calls)
    by_tokens = max(0, limits.daily_tokens - used_tokens) // tokens
    if by_calls <= by_tokens:
        return Room(day, by_calls, "budget_calls")
    return Room(day, by_tokens, "budget_tokens")


async def reserve(connection: Connection, day: date, calls: int, tokens: int) -> None:
    """Count `calls` and set `tokens` in all aside."""
    await connection.execute(RESERVE, day, calls, tokens)


async def settle(
    connection: Connection,
    reservation: Reservation,
    spent: Spent,
    *,
    agreed: int = 0,
    differed: int = 0,
) -> None:
    """Put what was used in place of what was reserved. Not repeatable: guard it by the claim."""
    usage, cost_usd = spent
    await connection.execute(
        SETTLE,
        reservation.day,
        reservation.tokens,
        usage.input_tokens,
        usage.output_tokens,
        cost_usd,
        agreed,
        differed,
    )


async def count_fallback(connection: Connection, reason: str) -> None:
    """Note that the rules had to do."""
    await connection.execute(COUNT_FALLBACK, reason)


async def count_hits(connection: Connection, hits: int) -> None:
    """Note look-ups that found a verdict, a page of them at once. Nobody waits for anybody."""
    await connection.execute(COUNT_HITS, hits)


async def totals(connection: Connection) -> Totals:
    """Everything spent since the beginning, with fallbacks by reason."""
    row = await connection.fetchrow(TOTALS)
    assert row is not None
    calls, tokens_in, tokens_out, cost_usd, *counts = row
    fallbacks = {reason: int(n) for reason, n in await connection.fetch(FALLBACK_TOTALS)}
    hits, agreed, differed = map(int, counts)
    return Totals(
        int(calls), int(tokens_in), int(tokens_out), cost_usd, hits, agreed, differed, fallbacks
    )
