"""One lane per claimed partition: batches in order, under the claim's epoch.

Lanes are independent; a bounded number of them works at once, so that decoding one batch overlaps
PostgreSQL's work on another. Small batches of several lanes share a transaction, and so need none
of those places. Only partitions whose lane has room are fetched, and only while all
lanes together hold few records: that is the whole back-pressure, and the bound on memory.

What ends a lane: a rebalance, another worker's claim (Fenced), a batch that does not start where
the database stands (OutOfSequence) or that does not come in, or the dead-letter limit. A lost claim
is claimed anew while the group still assigns the partition to us.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

import structlog
from faust.types import TP

from db.offsets import Claim, Stored
from service.errors import PartitionLost, Retryable
from service.metrics import METRICS
from streams.backoff import Backoff
from streams.batches import Batch

Crash = Callable[[BaseException], Coroutine[object, object, None]]

log = structlog.get_logger(__name__)

# No more is fetched for a lane that holds this many; one fetch may bring a few at once.
BATCHES_PER_LANE: Final = 2
# A partition that is this far behind is being caught up with, not kept up with.
BACKLOG_RECORDS: Final = 1_000
DRAIN_TIMEOUT_S: Final = 10.0
CLAIM_BUDGET_S: Final = 20.0
MAX_LOSSES_PER_MINUTE: Final = 10
# From where a batch is fetched it comes in at once; a busy worker may take a moment.
LOST_AFTER_S: Final = 10.0
# What a broker gave damaged it may give whole in a moment, or another broker in its place.
READ_AGAIN_S: Final = 5.0


class Reached(NamedTuple):
    """Where a partition stands after a batch, and whether it has stopped there."""

    next_offset: int
    stopped: bool


class Applier(Protocol):
    """Applies batches and claims partitions; see `streams.applying`."""

    async def claim(self, tps: Collection[TP], generation: int) -> dict[TP, Claim]:
        """Claim partitions in the database, those that can be had now. Raises Retryable."""
        ...

    async def apply(self, claim: Claim, batch: Batch, *, doubtful: bool) -> Reached:
        """Apply one batch. Raises Retryable, PartitionLost.

        `doubtful`: an earlier attempt may have committed.
        """
        ...

    async def stored(self) -> dict[TP, Stored]:
        """Where every partition stands in the database. Raises Retryable."""
        ...


@dataclass(slots=True)
class Lane:
    """A claimed partition and the batches on their way into the database.

    `expected`, `admitted`: where the next batch to be fetched, and to be put in, has to start.
    `reserved_at`: when room was made for the last batch that was fetched.
    `behind`: records that the topic had beyond the last fetch.
    `retrying`: the database is away or busy, and the last attempt to apply failed for that.
    `unreadable`: why the record that comes next cannot be read, which is tried again at
    `read_again_at`.
    """

    claim: Claim
    expected: int
    admitted: int
    applied: int
    # As long as `Lanes.reserve` lets in.
    batches: asyncio.Queue[Batch] = field(default_factory=asyncio.Queue)
    outstanding: int = 0
    behind: int = 0
    records: int = 0
    reserved_at: float = 0.0
    moved_at: float = field(default_factory=time.monotonic)
    retrying: bool = False
    busy_since: float | None = None
    stopped: bool = False
    unreadable: str | None = None
    read_again_at: float = 0.0
    task: asyncio.Task[None] | None = None


class Lanes:
    """All lanes of this worker. Lives on the event loop of the app; nothing here is thread-safe."""

    def __init__(
        self,
        applier: Applier,
        *,
        active_partitions: int,
        batch_max_records: int,
        crash: Crash,
    ) -> None:
        self.batch_max_records = batch_max_records
        self._max_records = 2 * active_partitions * batch_max_records
        self.seek: Callable[[Mapping[TP, int]], Awaitable[None]] | None = None
        self.last_polled_at = time.monotonic()
        self._applier = applier
        self._slots = asyncio.Semaphore(active_partitions)
        self._crash = crash
        self._lanes: dict[TP, Lane] = {}
        self._unclaimed: set[TP] = set()
        self._generation = 0
        self._room = asyncio.Event()
        self._claimer: asyncio.Task[None] | None = None
        self._unclaimed_since = time.monotonic()
        self._round = 0
        self._losses: dict[TP, deque[float]] = {}

    # ------------------------------------------------------------------ for the transport

    def polled(self) -> None:
        """Note that the consumer asks for records: the sign of life of an idle worker."""
        self.last_polled_at = time.monotonic()

    def with_room(self, tps: Iterable[TP]) -> set[TP]:
        """Those of `tps` that may be fetched now."""
        if sum(lane.records for lane in self._lanes.values()) >= self._max_records:
            return set()
        now = time.monotonic()
        return {
            tp
            for tp in tps
            if (lane := self._lanes.get(tp)) is not None
            and not lane.stopped
            and lane.outstanding < BATCHES_PER_LANE
            and lane.read_again_at <= now
        }

    async def wait_for_room(self, timeout_s: float) -> None:
        """Return when a lane has got room, or after `timeout_s`."""
        self._room.clear()
        try:
            await asyncio.wait_for(self._room.wait(), timeout_s)
        except TimeoutError:
            return

    def expected(self, tp: TP) -> int | None:
        """The offset at which the next batch of a partition starts; None when it is not ours."""
        lane = self._lanes.get(tp)
        return None if lane is None or lane.stopped else lane.expected

    def reserve(self, tp: TP, batch: Batch) -> bool:
        """Make room for a batch that is on its way to `admit`; False when it does not fit.

        Then it is to be dropped: the next one will not fit either and be sought back.
        """
        lane = self._lanes.get(tp)
        if lane is None or lane.stopped or lane.expected != batch.start:
            return False
        lane.expected = batch.end
        lane.unreadable = None
        lane.outstanding += 1
        lane.records += len(batch.records)
        lane.reserved_at = time.monotonic()
        return True

    def saw_end(self, tp: TP, end: int) -> None:
        """Note where a partition's topic ends, as the last fetch knew it."""
        lane = self._lanes.get(tp)
        if lane is not None:
            lane.behind = max(0, end - lane.expected)

    def admit(self, batch: Batch) -> None:
        """Put a batch into its lane; one from before the present claim is dropped."""
        lane = self._lanes.get(TP(batch.topic, batch.partition))
        if lane is None or lane.stopped or lane.admitted != batch.start:
            # Reserved in a lane that is gone, so nothing is lost: it is fetched again.
            log.warning("batch_dropped", action="drop", topic=batch.topic,
                        partition=batch.partition, start=batch.start)  # fmt: skip
            return
        lane.admitted = batch.end
        lane.batches.put_nowait(batch)

    def missing(self, tp: TP) -> None:
        """The broker does not have the offset that comes next: claim anew, which finds out why."""
        lane = self._lanes.get(tp)
        if lane is not None and not lane.stopped:
            self._lose(tp, lane, PartitionLost(f"the broker has no offset {lane.expected}"))

    def unreadable(self, tp: TP, error: Exception) -> None:
        """What comes next cannot be read: this partition tries again later, the others go on."""
        lane = self._lanes.get(tp)
        if lane is None or lane.stopped:
            return
        lane.read_again_at = time.monotonic() + READ_AGAIN_S
        if lane.unreadable is None:
            METRICS.incidents.labels("records_unreadable").inc()
            log.error("records_unreadable", action="retry", topic=tp.topic, partition=tp.partition,
                      offset=lane.expected, error=f"{type(error).__name__}: {error}",
                      advice="nothing is skipped; see docs/runbook.md")  # fmt: skip
        lane.unreadable = f"{type(error).__name__} at offset {lane.expected}"

    # ------------------------------------------------------------------ claims

    async def claim(self, tps: Collection[TP], generation: int) -> Mapping[TP, int]:
        """Claim all assigned partitions; where each of those claimed now is to be read from.

        Whatever cannot be claimed within the budget is claimed in the background.
        """
        await self.release()
        self._generation = generation
        self._await_claim(tps)
        try:
            offsets = await asyncio.wait_for(self._claim_all(), CLAIM_BUDGET_S)
        except (Retryable, TimeoutError) as error:
            log.warning("claim_delayed", action="claim", error=str(error), partitions=len(tps))
            offsets = {}
        if offsets and self.seek is not None:
            await self.seek(offsets)
        if self._unclaimed:
            self._start_claimer()
        return offsets

    async def release(self, drain_s: float = DRAIN_TIMEOUT_S) -> None:
        """Finish the transactions in flight (for `drain_s` at most) and forget every lane."""
        lanes, self._lanes, self._unclaimed = self._lanes, {}, set()
        self._round += 1
        if self._claimer is not None:
            self._claimer.cancel()
            self._claimer = None
        tasks = []
        for lane in lanes.values():
            lane.stopped = True
            if lane.task is not None:
                if lane.busy_since is None or lane.retrying:
                    lane.task.cancel()
                tasks.append(lane.task)
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=drain_s)
            for task in pending:
                task.cancel()
            if pending:
                await asyncio.wait(pending, timeout=2.0)
        self._room.set()

    def _await_claim(self, tps: Iterable[TP]) -> None:
        if not self._unclaimed:
            self._unclaimed_since = time.monotonic()
        self._unclaimed.update(tps)

    async def _claim_all(self) -> dict[TP, int]:
        asked_in, wanted = self._round, set(self._unclaimed)
        claims = await self._applier.claim(wanted, self._generation) if wanted else {}
        if asked_in != self._round:
            # A rebalance came in between. Whoever owns these partitions now claims them after us.
            return {}
        for tp, claim in claims.items():
            self._unclaimed.discard(tp)
            self._open(tp, claim)
        return {tp: claim.next_offset for tp, claim in claims.items()}

    def _open(self, tp: TP, claim: Claim) -> None:
        at = claim.next_offset
        lane = Lane(claim, expected=at, admitted=at, applied=at)
        lane.stopped = claim.stopped_at is not None
        if lane.stopped:
            log.error("partition_stopped", action="stop", topic=tp.topic, partition=tp.partition,
                      advice="engagement dlq resume")  # fmt: skip
        self._lanes[tp] = lane
        lane.task = asyncio.create_task(self._work(tp, lane), name=f"lane {tp}")
        self._room.set()

    def _start_claimer(self) -> None:
        if self._claimer is None or self._claimer.done():
            self._claimer = asyncio.create_task(self._claim_in_background(), name="claimer")

    async def _claim_in_background(self) -> None:
        backoff = Backoff(first_s=0.5, most_s=3.0)
        while self._unclaimed:
            await backoff.wait()
            try:
                offsets = await asyncio.wait_for(self._claim_all(), CLAIM_BUDGET_S)
                if offsets and self.seek is not None:
                    await self.seek(offsets)
            except (Retryable, TimeoutError) as error:
                log.warning("claim_failed", action="claim", error=str(error))
            except Exception as error:  # noqa: BLE001 - a defect ends the worker, loudly
                await self._crash(error)
                return

    async def compare(self) -> None:
        """Claim anew what does not stand in the database where we left it. Raises Retryable.

        Stopped partitions that somebody has resumed; and those that the database has gone back
        with, after a crash or as a standby: where no record follows, nothing else would tell. Also
        those of which a batch has got lost between the consumer and the lane.
        """
        for tp, lane in list(self._lanes.items()):
            if _waits_in_vain(lane):
                lost = f"the batch at {lane.admitted} got lost on its way here"
                self._lose(tp, lane, PartitionLost(lost))
        before = {tp: (lane, lane.applied) for tp, lane in self._lanes.items() if _rests(lane)}
        if not before:
            return
        stored = await self._applier.stored()
        for tp, (lane, applied) in before.items():
            if self._lanes.get(tp) is not lane or not _rests(lane) or lane.applied != applied:
                continue
            found = stored.get(tp)
            if lane.stopped:
                if found is None or found.epoch != lane.claim.epoch or found.stopped_at is None:
                    del self._lanes[tp]
                    self._await_claim([tp])
                    self._start_claimer()
            elif _has_gone_back(lane, found):
                where = "nowhere" if found is None else found.next_offset
                self._lose(tp, lane, PartitionLost(f"the database stands at {where}"))

    # ------------------------------------------------------------------ work

    async def _work(self, tp: TP, lane: Lane) -> None:
        try:
            while not lane.stopped:
                batch = await lane.batches.get()
                async with nullcontext() if batch.is_small else self._slots:
                    lane.busy_since = time.monotonic()
                    reached = await self._apply(lane, batch)
                    lane.busy_since = None
                lane.applied, lane.moved_at = reached.next_offset, time.monotonic()
                lane.outstanding -= 1
                lane.records -= len(batch.records)
                if reached.stopped:
                    lane.stopped = True
                    lane.records = 0
                self._room.set()
        except PartitionLost as error:
            self._lose(tp, lane, error)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("lane_failed", action="crash", topic=tp.topic, partition=tp.partition)
            await self._crash(error)

    async def _apply(self, lane: Lane, batch: Batch) -> Reached:
        """Apply, trying again for as long as the claim may still be ours."""
        backoff = Backoff(first_s=0.2, most_s=5.0)
        doubtful = False
        while True:
            try:
                reached = await self._applier.apply(lane.claim, batch, doubtful=doubtful)
            except Retryable as error:
                lane.retrying = True
                METRICS.intake_retries.inc()
                log.warning(
                    "batch_retried", action="retry", topic=batch.topic, partition=batch.partition,
                    start=batch.start, error=str(error),
                )  # fmt: skip
                doubtful = True
                if lane.stopped:
                    # Revoked meanwhile: whoever owns the partition next knows what is stored.
                    raise PartitionLost("revoked while retrying") from error
                await backoff.wait()
            else:
                lane.retrying = False
                return reached

    def _lose(self, tp: TP, lane: Lane, error: PartitionLost) -> None:
        if lane.stopped or self._lanes.get(tp) is not lane:
            return
        lane.stopped = True
        del self._lanes[tp]
        if lane.task is not None and lane.task is not asyncio.current_task():
            lane.task.cancel()
        METRICS.claims_lost.inc()
        log.warning("claim_lost", action="claim", topic=tp.topic, partition=tp.partition,
                    error=str(error))  # fmt: skip
        if self._is_lost_too_often(tp):
            failure = RuntimeError("claims are lost again and again: two groups on one database?")
            self._claimer = asyncio.create_task(self._crash(failure), name="crash")
            return
        self._await_claim([tp])
        self._start_claimer()

    def _is_lost_too_often(self, tp: TP) -> bool:
        now = time.monotonic()
        losses = self._losses.setdefault(tp, deque())
        losses.append(now)
        while losses[0] < now - 60:
            losses.popleft()
        return len(losses) > MAX_LOSSES_PER_MINUTE

    # ------------------------------------------------------------------ for probes and commits

    @property
    def applied(self) -> dict[TP, int]:
        """Offset up to which each of our partitions is applied."""
        return {tp: lane.applied for tp, lane in self._lanes.items()}

    @property
    def stopped(self) -> list[TP]:
        """Partitions that have stopped at the dead-letter limit."""
        return [tp for tp, lane in self._lanes.items() if lane.stopped]

    @property
    def unreadable_partitions(self) -> dict[TP, str]:
        """Partitions whose next record cannot be read, and why."""
        return {
            tp: lane.unreadable for tp, lane in self._lanes.items() if lane.unreadable is not None
        }

    @property
    def unclaimed(self) -> int:
        """Assigned partitions that are not claimed yet."""
        return len(self._unclaimed)

    @property
    def is_saturated(self) -> bool:
        """Whether there is a backlog: more records wait in a partition than a moment brings.

        Batches that wait are none by themselves: there are few records in each while a steady
        stream is kept up with. Neither is what can't be read for now.
        """
        return any(
            lane.records + lane.behind >= BACKLOG_RECORDS
            for lane in self._lanes.values()
            if not lane.stopped and lane.unreadable is None
        )

    @property
    def is_idle(self) -> bool:
        """Whether no batch is on its way."""
        return all(lane.outstanding == 0 for lane in self._lanes.values())

    def unmoved_for(self, seconds: float) -> dict[TP, int]:
        """Partitions that have not moved for so long, the database willing -> where they are.

        None while it turns a batch away: the others wait for that one's slot, or for its room.
        """
        if any(lane.retrying for lane in self._lanes.values()):
            return {}
        before = time.monotonic() - seconds
        return {
            tp: lane.applied
            for tp, lane in self._lanes.items()
            if not lane.stopped and lane.unreadable is None and lane.moved_at < before
        }

    def unclaimed_for_s(self) -> float:
        """For how long some assigned partition has not been claimed."""
        return time.monotonic() - self._unclaimed_since if self._unclaimed else 0.0


def _rests(lane: Lane) -> bool:
    """Whether nothing of it is on its way into the database."""
    return lane.stopped or lane.outstanding == 0


def _waits_in_vain(lane: Lane) -> bool:
    """Whether a batch was fetched that does not come in, and so nothing that follows it either."""
    return (
        not lane.stopped
        and lane.admitted < lane.expected
        and lane.busy_since is None
        and lane.batches.empty()
        and lane.reserved_at < time.monotonic() - LOST_AFTER_S
    )


def _has_gone_back(lane: Lane, stored: Stored | None) -> bool:
    """Whether the database lacks what it had confirmed. A higher epoch is another worker's."""
    if stored is None or stored.epoch < lane.claim.epoch:
        return True
    return stored.epoch == lane.claim.epoch and stored.next_offset != lane.applied
