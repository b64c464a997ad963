"""Apply batches, each in one transaction: fence and offset, facts, due marks, dead letters.

Those with nothing but rows to apply take one statement, which small ones share with those of other
partitions. Whatever that one can't do is done step by step.

If the connection dies in COMMIT nobody says whether it happened. The offset does: it moved with the
batch, so the next attempt looks first and either goes on or does the work again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from operator import itemgetter
from typing import Any, Final, NamedTuple
from uuid import UUID

import structlog
from faust.types import TP

from db import dead_letters, erasures, offsets
from db.dead_letters import DeadLetterRow
from db.errors import DataRefused
from db.intake import FEW_ROWS, Applied, apply_rows
from db.member_ids import MemberIds
from db.offsets import Claim, Move, Stored
from db.plain_batches import apply_plain
from db.pool import Connection, Pool, acquired, transaction
from service.decoding import is_id
from service.erasing import Erased
from service.errors import Fenced, Retryable
from service.events import InputKind
from service.metrics import METRICS
from streams.batches import Batch
from streams.group_commit import GroupCommit
from streams.intake import Decoded, Erasure, Refusal, Row, decode_batch, newest
from streams.lanes import Reached
from streams.positions import CheckClaims, fingerprint

log = structlog.get_logger(__name__)

MAX_MESSAGE_LENGTH: Final = 500
# Of many refused records the first few name the fault; `engagement dlq list` has them all.
LOGGED_OFFSETS: Final = 10
# Each costs a few statements, and a transaction has its time.
MOST_TURNS: Final = 50
# Erasures of one transaction: each goes over all dead letters, and keeps everybody else out.
MOST_ERASURES: Final = 200


class ClockMoved(Exception):
    """The database's clock is not where we took it to be; decode again."""


class Part(NamedTuple):
    """A batch that is ready to be applied."""

    claim: Claim
    batch: Batch
    decoded: Decoded

    @property
    def move(self) -> Move:
        """What it does to its partition."""
        _, batch, decoded = self
        end = _end_of(batch, decoded)
        last = batch.records[-1] if batch.records else None
        return Move(
            self.claim,
            batch.start,
            end,
            decoded.consecutive_failures,
            # Of the record right before the offset, or of none.
            fingerprint(last) if last and last.offset + 1 == end else None,
            decoded.stop_after is not None,
        )


class BatchApplier:
    """The way of a batch into the database. One for all lanes of a worker."""

    def __init__(  # noqa: PLR0913 - one place puts the worker together
        self,
        pool: Pool,
        ids: MemberIds,
        *,
        kinds: Mapping[str, InputKind],
        owner: UUID,
        max_future_skew: timedelta,
        max_consecutive_failures: int,
        erasure_memory: timedelta,
        ranges: Callable[[Collection[TP]], Awaitable[Mapping[TP, tuple[int, int]]]],
        check_claims: CheckClaims,
        marked: Callable[[], None],
    ) -> None:
        """`ids` forgets with each new connection of `pool`. `kinds`: topic -> kind.

        `ranges`: first and end offset of partitions, from the broker. `check_claims` may move or
        stop claims whose records the broker does not have. `marked` is called after a commit that
        made somebody due.
        """
        self._pool = pool
        self._kinds = kinds
        METRICS.announce(kinds)
        self._owner = owner
        self._max_future_skew = max_future_skew
        self._max_consecutive_failures = max_consecutive_failures
        self._erasure_memory = erasure_memory
        self._ranges = ranges
        self._check_claims = check_claims
        self._marked = marked
        self._ids = ids
        self._groups = {
            kind: GroupCommit(self._commit_plain, lambda part: len(part.batch.records), FEW_ROWS)
            for kind in InputKind
        }
        self._failures: dict[TP, int] = {}
        self._most_erasures = MOST_ERASURES
        # The database's clock: its last answer and when, by the monotonic clock, we got it.
        self._clock = (datetime.min.replace(tzinfo=UTC), 0.0)

    async def claim(self, tps: Collection[TP], generation: int) -> dict[TP, Claim]:
        """Claim partitions; one that was never read begins at the first record the topic has.

        Those that their former owner still writes to are not among the result.
        """
        ranges = dict(await self._ranges(tps))
        starts = {(tp.topic, tp.partition): ranges[tp][0] for tp in tps}
        async with transaction(self._pool) as connection:
            claims = await offsets.claim(
                connection, starts, owner=self._owner, generation=generation
            )
            self._set_clock(await offsets.read_now(connection))
        # Their former owners may have applied what came after the broker was asked.
        next_offsets = {TP(claim.topic, claim.partition): claim.next_offset for claim in claims}
        ahead = [tp for tp, next_offset in next_offsets.items() if next_offset > ranges[tp][1]]
        if ahead:
            ranges.update(await self._ranges(ahead))
        held = await self._check_claims(claims, ranges)
        for tp, claim in held.items():
            self._failures[tp] = claim.consecutive_failures
        log.info("claimed", action="claim", partitions=len(held), generation=generation,
                 held_by_others=len(tps) - len(held))  # fmt: skip
        return held

    async def apply(self, claim: Claim, batch: Batch, *, doubtful: bool) -> Reached:
        """Apply one batch; stopped when its partition has come to the dead-letter limit.

        One with many erasures in parts, each in a transaction of its own.
        """
        reached = await self._reached(claim, batch) if doubtful else None
        if reached is not None:
            if reached.stopped or reached.next_offset >= batch.end:
                return reached
            batch = batch.since(reached.next_offset)
        for part in self._parts(batch):
            reached = await self._apply_part(claim, part)
            if reached.stopped:
                break
        assert reached is not None
        return reached

    async def _apply_part(self, claim: Claim, batch: Batch) -> Reached:
        started = time.perf_counter()
        decoded = self._decode(batch)
        if not (decoded.is_plain and await self._apply_plain(Part(claim, batch, decoded))):
            # Should they be too many for the time of a transaction, the next attempt takes fewer.
            most, count = self._most_erasures, len(decoded.erasures)
            if count:
                self._most_erasures = max(1, count // 2)
            decoded = await self._apply_step_by_step(claim, batch, decoded)
            if count:
                self._most_erasures = min(MOST_ERASURES, 2 * most)
        self._count(batch, decoded, time.perf_counter() - started)
        return Reached(_end_of(batch, decoded), decoded.stop_after is not None)

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        """The batch in parts of so many erasures."""
        if self._kinds[batch.topic] is InputKind.MEMBERSHIP:
            tombstones = [r.offset for r in batch.records if r.value is None]
            while len(tombstones) > self._most_erasures:
                last = tombstones[self._most_erasures - 1]
                yield batch.before(last + 1)
                batch = batch.since(last + 1)
                tombstones = [offset for offset in tombstones if offset > last]
        yield batch

    async def _apply_plain(self, part: Part) -> bool:
        """Apply a part by one statement; False when nothing was done, and it goes step by step.

        Raises Retryable when it may have been done.
        """
        if part.batch.is_small:
            return await self._groups[part.decoded.kind].commit(part)
        try:
            await self._commit_plain([part])
        except Retryable:
            raise
        except Exception as error:  # noqa: BLE001 - what is the matter, shows step by step
            log.info("batch_not_plain", action="retry", topic=part.batch.topic,
                     partition=part.batch.partition, start=part.batch.start,
                     error=type(error).__name__)  # fmt: skip
            return False
        return True

    async def _apply_step_by_step(self, claim: Claim, batch: Batch, decoded: Decoded) -> Decoded:
        """Apply a batch in a transaction of its own; what was applied at last."""
        refused: frozenset[int] = frozenset()
        while True:
            try:
                await self._commit(Part(claim, batch, decoded))
            except ClockMoved:
                pass
            except DataRefused as error:
                culprits = await self._find_refused(batch)
                if not culprits - refused:
                    # The records pass one by one: not their fault, so not a dead letter.
                    raise RuntimeError(f"the database refuses a batch: {error}") from error
                refused |= culprits
            else:
                return decoded
            decoded = self._decode(batch, refused)

    async def stored(self) -> dict[TP, Stored]:
        """Where every partition stands in the database."""
        async with acquired(self._pool) as connection:
            rows = await offsets.read_all(connection)
        return {
            TP(row["topic"], row["partition"]): Stored(*(row[name] for name in Stored._fields))
            for row in rows
        }

    async def _reached(self, claim: Claim, batch: Batch) -> Reached | None:
        """Where an attempt that seemed to fail has brought the partition; None: nowhere."""
        async with acquired(self._pool) as connection:
            stored = await offsets.read(connection, claim.topic, claim.partition)
        if stored is None or stored.epoch != claim.epoch:
            raise Fenced(f"{claim.topic}/{claim.partition} was claimed by another worker")
        if stored.next_offset <= batch.start:
            # Before it: a server that lacks its latest commits. The next attempt is told.
            return None
        self._failures[TP(batch.topic, batch.partition)] = stored.consecutive_failures
        self._marked()
        log.info("batch_was_applied", action="apply", topic=batch.topic,
                 partition=batch.partition, start=batch.start)  # fmt: skip
        return Reached(stored.next_offset, stored.stopped_at is not None)

    def _decode(self, batch: Batch, refused: Collection[int] = ()) -> Decoded:
        kind = self._kinds[batch.topic]
        return decode_batch(
            kind,
            batch.records,
            latest_allowed=self._now() + self._max_future_skew,
            consecutive_failures=self._failures[TP(batch.topic, batch.partition)],
            max_consecutive_failures=self._max_consecutive_failures,
            rejected=refused,
        )

    async def _commit_plain(self, parts: Sequence[Part]) -> None:
        """Apply plain parts of one kind, of different partitions, all or none."""
        decoded = [part.decoded for part in parts]
        rows, clashes = _rows_of(decoded)
        async with acquired(self._pool) as connection:
            renewals = self._ids.renewals
            applied, now = await apply_plain(
                connection,
                decoded[0].kind,
                [part.move for part in parts],
                rows,
                self._ids,
                latest_accepted=max(d.latest_accepted for d in decoded),
                max_skew=self._max_future_skew,
            )
        self._set_clock(now)
        self._ids.remember(applied.members, applied.epoch, renewals)
        decoded[0].clashes += clashes + applied.clashes
        for _, batch, d in parts:
            self._failures[TP(batch.topic, batch.partition)] = d.consecutive_failures
        if applied.marked:
            self._marked()

    async def _commit(self, part: Part) -> None:
        """Apply one part in a transaction, whatever is in it."""
        _, batch, decoded = part
        async with transaction(self._pool) as connection:
            renewals = self._ids.renewals
            now = await offsets.advance(connection, [part.move])
            self._set_clock(now)
            if not decoded.holds_at(now + self._max_future_skew):
                raise ClockMoved
            if decoded.erasures:
                # Erasing and applying records exclude each other.
                await erasures.hold(connection)
            applied = await apply_decoded(connection, decoded, self._ids)
            erased: list[Erased] = []
            for letters, subjects in _turns(batch, decoded):
                await dead_letters.insert(connection, letters)
                if subjects:
                    erased += await erasures.erase_all(connection, subjects, self._erasure_memory)
        if erased:
            _log_erasures(batch, erased)
        self._failures[TP(batch.topic, batch.partition)] = decoded.consecutive_failures
        self._ids.remember(applied.members, applied.epoch, renewals)
        decoded.clashes += applied.clashes
        if applied.marked or not decoded.is_plain:
            self._marked()

    async def _find_refused(self, batch: Batch) -> frozenset[int]:
        """Offsets of the records that the database refuses on their own, by bisection."""
        culprits: set[int] = set()
        pending = [list(batch.records)]
        while pending:
            records = pending.pop()
            if await self._passes(batch, records):
                continue
            if len(records) == 1:
                culprits.add(records[0].offset)
                continue
            half = len(records) // 2
            pending += [records[half:], records[:half]]
        return frozenset(culprits)

    async def _passes(self, batch: Batch, records: list[Any]) -> bool:
        kind = self._kinds[batch.topic]
        decoded = decode_batch(
            kind,
            records,
            latest_allowed=self._now() + self._max_future_skew,
            max_consecutive_failures=len(records) + 1,
        )
        try:
            async with acquired(self._pool) as connection:
                probe = connection.transaction()
                await probe.start()
                try:
                    await apply_decoded(connection, decoded, MemberIds())
                finally:
                    await probe.rollback()
        except DataRefused:
            return False
        return True

    def _now(self) -> datetime:
        answer, at = self._clock
        return answer + timedelta(seconds=time.monotonic() - at)

    def _set_clock(self, now: datetime) -> None:
        self._clock = (now, time.monotonic())

    def _count(self, batch: Batch, decoded: Decoded, seconds: float) -> None:
        METRICS.batch_seconds.labels(batch.topic).observe(seconds)
        METRICS.records.labels(batch.topic, "applied").inc(decoded.accepted)
        if decoded.clashes:
            METRICS.clashes.labels(batch.topic).inc(decoded.clashes)
        for refusal in decoded.refusals:
            METRICS.records.labels(batch.topic, "refused").inc()
            METRICS.dead_letters.labels(batch.topic, refusal.code.value).inc()
        if decoded.refusals:
            log.warning("records_refused", action="dead_letter", topic=batch.topic,
                        partition=batch.partition, count=len(decoded.refusals),
                        first_offsets=[r.record.offset for r in decoded.refusals[:LOGGED_OFFSETS]],
                        codes=sorted({r.code.value for r in decoded.refusals}))  # fmt: skip
        if decoded.stop_after is not None:
            log.error("partition_stopped", action="stop", topic=batch.topic,
                      partition=batch.partition, offset=decoded.stop_after,
                      failures=decoded.consecutive_failures,
                      advice="mend the producer, then run `engagement dlq resume`")  # fmt: skip


async def apply_decoded(connection: Connection, decoded: Decoded, ids: MemberIds) -> Applied:
    """Apply the rows of a batch in the caller's transaction, in two turns if members come back."""
    kind, rows, departures = decoded.kind, decoded.rows, decoded.departures
    if not departures:
        return await apply_rows(connection, kind, rows, ids)
    first = await apply_rows(connection, kind, departures, ids)
    second = await apply_rows(connection, kind, rows, ids)
    # Who has departed is in both: the second has looked up everybody.
    return second._replace(
        written=first.written + second.written,
        clashes=first.clashes + second.clashes,
        marked=first.marked + second.marked,
    )


def _log_erasures(batch: Batch, erased: Sequence[Erased]) -> None:
    """What a receipt says, in sum and without the ids: nobody waits for one here."""
    removed: Counter[str] = Counter()
    for one in erased:
        removed.update(one.receipt.removed)
        removed.update(one.receipt.pseudonymised)
    log.info("members_erased", action="erase", topic=batch.topic, partition=batch.partition,
             start=batch.start, count=len(erased), known=sum(one.was_known for one in erased),
             **{name.replace(" ", "_"): n for name, n in sorted(removed.items())})  # fmt: skip


def _turns(
    batch: Batch, decoded: Decoded
) -> list[tuple[list[DeadLetterRow], list[erasures.Subject]]]:
    """Dead letters and erasures by turns, as the records come.

    An erasure takes the letters about the member that came before, and leaves what comes after. Of
    very many turns the last ones are one, in favour of forgetting.
    """
    turns: list[tuple[list[DeadLetterRow], list[erasures.Subject]]] = [([], [])]
    found: list[tuple[int, Refusal | Erasure]] = [(r.record.offset, r) for r in decoded.refusals]
    found += [(erasure.offset, erasure) for erasure in decoded.erasures]
    for _, one in sorted(found, key=itemgetter(0)):
        if isinstance(one, Erasure):
            turns[-1][1].append(erasures.Subject(one.org_id, one.user_id, one.erased_at))
            continue
        if turns[-1][1] and len(turns) < MOST_TURNS:
            turns.append(([], []))
        turns[-1][0].append(dead_letter_row(batch, one))
    return turns


def _rows_of(decoded: Sequence[Decoded]) -> tuple[list[Row], int]:
    """The newest row per natural key, and how many clashes there are besides those within each.

    Records of one natural key are in one partition, unless their producer left out the record key.
    """
    if len(decoded) == 1:
        return decoded[0].rows, 0
    return newest(decoded[0].kind, chain.from_iterable(d.rows for d in decoded))


def _end_of(batch: Batch, decoded: Decoded) -> int:
    """Up to where a batch is applied: to its end, or to where the dead-letter limit stops it."""
    return batch.end if decoded.stop_after is None else decoded.stop_after + 1


def dead_letter_row(batch: Batch, refusal: Refusal) -> DeadLetterRow:
    """The row of a refusal; whose record it was, where the key tells."""
    record = refusal.record
    org_id, user_id = _subject(record.key)
    return DeadLetterRow(
        batch.topic,
        batch.partition,
        record.offset,
        refusal.code.value,
        refusal.message[:MAX_MESSAGE_LENGTH],
        record.key,
        record.value,
        list(record.headers),
        org_id,
        user_id,
    )


def _subject(key: bytes | None) -> tuple[str | None, str | None]:
    first, colon, second = (key or b"").decode("utf-8", "replace").partition(":")
    if colon and is_id(first) and is_id(second):
        return first, second
    return None, first if not colon and is_id(first) else None
