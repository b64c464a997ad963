"""What comes out of fetched bytes, be they as no well-meant client makes them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final

import pytest
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.structs import ConsumerRecord, TopicPartition

from streams import reading
from tests.record_batches import NAME, READ_AS, damaged, with_odd_names

PARTITION: Final = TopicPartition("attendance", 0)
CODECS: Final = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


def batch(first: int, count: int, *, header: str = "trace", codec: int = 0) -> bytes:
    """Records from offset `first` on; the last one has a header."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 16)
    for number in range(count):
        headers = [(header, b"1")] if number == count - 1 else []
        builder.append(number, 1_700_000_000_000 + number, b"club:ada", b"{}", headers)
    built = bytes(builder.build())
    return first.to_bytes(8, "big") + built[8:]


class Partition:
    """A partition of which a broker has these batches, and a consumer that reads it."""

    def __init__(self, *batches: bytes, at: int = 0, guarded: bool = True) -> None:
        self.batches = batches
        subscriptions = SubscriptionState()
        subscriptions.assign_from_user([PARTITION])
        self._assignment = subscriptions.subscription.assignment
        self._state = self._assignment.state_value(PARTITION)
        self._state.reset_to(at)
        self._consumer: Any = SimpleNamespace(_fetcher=SimpleNamespace(_records={}))
        self.unreadable = reading.guard(self._consumer) if guarded else {}

    @property
    def position(self) -> int:
        """The offset that is read next."""
        return int(self._state.position)

    def fetch(self) -> Sequence[Any]:
        """What one fetch gives, from the position on."""
        # A broker begins with the batch that holds the position.
        data = b"".join(
            b for b in self.batches if DefaultRecordBatch(b).next_offset > self.position
        )
        records = PartitionRecords(
            PARTITION, fetcher.MemoryRecords(data), [], self.position, None, None,
            True, READ_COMMITTED,
        )  # fmt: skip
        ahead = self._consumer._fetcher._records
        ahead[PARTITION] = FetchResult(
            PARTITION, assignment=self._assignment, partition_records=records, backoff=0
        )
        found: Sequence[Any] = ahead[PARTITION].getall()
        return found


def _seen(record: Any) -> tuple[Any, ...]:
    return record.offset, record.timestamp, record.key, record.value, list(record.headers)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
async def test_records_are_handed_over_as_they_were_read(codec: int) -> None:
    """With everything that is looked at, and as the client itself would have given them."""
    data = batch(0, 2, codec=codec)
    found, wrapped = Partition(data).fetch(), Partition(data, guarded=False).fetch()
    assert not any(isinstance(record, ConsumerRecord) for record in found)
    assert [_seen(r) for r in found] == [_seen(r) for r in wrapped]
    assert _seen(found[1]) == (1, 1_700_000_000_001, b"club:ada", b"{}", [("trace", b"1")])


async def test_a_header_name_that_is_no_text_is_read_like_other_clients_read_it() -> None:
    spoilt = with_odd_names(batch(2, 2, header=NAME))
    partition = Partition(batch(0, 2), spoilt, batch(4, 1))
    # What comes before it first: it is in the way of the fetch after that, which goes round it.
    assert [r.offset for r in partition.fetch()] == [0, 1, 2]
    (odd,) = partition.fetch()
    assert _seen(odd) == (3, 1_700_000_000_001, b"club:ada", b"{}", [(READ_AS, b"1")])
    assert [r.offset for r in partition.fetch()] == [4]
    assert (partition.position, partition.unreadable) == (5, {})


async def test_it_is_read_in_the_middle_and_at_the_beginning_of_a_batch() -> None:
    spoilt = [with_odd_names(batch(first, count, header=NAME)) for first, count in ((0, 3), (3, 1))]
    partition = Partition(*spoilt, at=1)
    found: list[int] = []
    while partition.position < 4:
        found += [record.offset for record in partition.fetch()]
    assert found == [1, 2, 3]


async def test_a_client_that_wraps_records_gets_it_wrapped() -> None:
    partition = Partition(with_odd_names(batch(0, 1, header=NAME)))
    partition._consumer._fetcher._records = {}
    reading.guard(partition._consumer, wraps=True)
    (odd,) = partition.fetch()
    assert isinstance(odd, ConsumerRecord)
    assert (odd.topic, odd.offset, odd.headers) == ("attendance", 0, ((READ_AS, b"1"),))


async def test_what_is_damaged_is_named_and_nothing_behind_it_is_read() -> None:
    partition = Partition(batch(0, 2), damaged(batch(2, 2)), batch(4, 1))
    assert [r.offset for r in partition.fetch()] == [0, 1]
    assert partition.unreadable == {}
    for _ in range(2):
        assert partition.fetch() == []
        assert "checksum" in str(partition.unreadable.pop(PARTITION))
        assert partition.position == 2
    # Mended, or read from another broker, it goes on where it stopped.
    partition.batches = (batch(2, 2), batch(4, 1))
    assert [r.offset for r in partition.fetch()] == [2, 3, 4]
