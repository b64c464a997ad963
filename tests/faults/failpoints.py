"""Places inside a worker at which a test can end, hold or disturb it.

The product knows nothing of them: `tests/faults/worker_main.py` wraps its functions before it
starts. Every arrival at a place in use leaves a file `<place>.<n>` in the plan's folder, so that a
test can tell that its fault has struck.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

PLACES = (
    "claim",  # before the claim of partitions is written
    "fence",  # a batch is decoded, its transaction has begun
    "upserts",  # facts and marks are written
    "commit",  # everything is written, COMMIT comes next
    "committed",  # COMMIT has succeeded, the worker does not know yet
    "taken",  # the evaluator has taken marks
    "read",  # the evaluator has read the facts
    "evaluated",  # results, history and messages are written, COMMIT comes next
    "settled",  # that COMMIT has succeeded, the evaluator does not know yet
    "paged",  # the relay has read a page of the outbox
    "send",  # before the relay sends a page
    "sequence",  # the relay's producer gives a batch its sequence number
    "sent",  # Kafka has acknowledged, the relay has not deleted yet
    "survey",  # a page of the daily run is taken, and is surveyed next
    "close",  # everybody on a page is done, and it is closed next
    "fetched",  # the consumer has got records from the broker
    "admit",  # a batch is about to be put into its lane
)
Action = Literal["kill", "freeze", "hold", "fail", "drop", "watch"]
POLL_S = 0.01


@dataclass(frozen=True)
class Failpoint:
    """What happens at a place: at the arrival number `at` and the `times - 1` that follow.

    `kill` and `freeze` are SIGKILL and SIGSTOP to oneself. `hold` waits until the test makes the
    file `<place>.go`. `fail` raises the database's error with SQLSTATE `detail`, or OSError. `drop`
    loses the records (at `fetched`), the batch (at `admit`) or some numbers (at `sequence`).
    `watch` only counts.
    """

    place: str
    action: Action
    at: int = 1
    times: int = 1
    detail: str = ""

    def __post_init__(self) -> None:
        assert self.place in PLACES, self.place


@dataclass
class Plan:
    """The failpoints of one process; counts arrivals."""

    folder: Path
    failpoints: Sequence[Failpoint]
    arrivals: Counter[str] = field(default_factory=Counter)

    def due(self, place: str) -> Failpoint | None:
        """Count an arrival; the failpoint that strikes now."""
        if all(one.place != place for one in self.failpoints):
            return None
        self.arrivals[place] += 1
        number = self.arrivals[place]
        (self.folder / f"{place}.{number}").touch()
        for one in self.failpoints:
            if one.place == place and one.at <= number < one.at + one.times:
                return one
        return None

    async def arrive(self, place: str) -> None:
        """Do what is planned for this arrival."""
        one = self.due(place)
        if one is None:
            return
        if one.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif one.action == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif one.action == "hold":
            while not (self.folder / f"{place}.go").exists():  # noqa: ASYNC110 - another process
                await asyncio.sleep(POLL_S)
        elif one.action == "fail":
            raise error_of(one.detail)

    def as_json(self) -> list[dict[str, object]]:
        """For the command line of a worker."""
        return [asdict(one) for one in self.failpoints]


def error_of(sqlstate: str) -> Exception:
    """The database driver's own error for a SQLSTATE; without one, a broken connection."""
    import asyncpg

    if not sqlstate:
        return ConnectionResetError("connection reset by the test")
    error: Exception = asyncpg.PostgresError.new({"C": sqlstate, "M": f"injected {sqlstate}"})
    return error
