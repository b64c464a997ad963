"""Records as they come out of what a fetch brought. What cannot be read harms its partition alone.

aiokafka reads what was fetched when it is asked for records, and raises what goes wrong there to
whoever asked, for all partitions at once. Here a partition gives what comes before the fault, then
nothing, and says why (`guard`). Records whose header names are no UTF-8, which brokers accept, are
read as other clients read them: with replacement characters.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final

import aiokafka
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

Unreadable = dict[TopicPartition, Exception]

# Of a record batch of any version: its first offset, and the length of what follows.
_FRAME: Final = struct.Struct(">qi")
_OLD_FORMAT: Final = 2


def guard(consumer: aiokafka.AIOKafkaConsumer, *, wraps: bool = False) -> Unreadable:
    """Guard what this consumer fetches from now on; the partitions whose next record can't be read.

    Whoever asked for records takes out what stands there: the next attempt says it again. Unless it
    `wraps` them, records are handed over as they were read: they have all but topic and partition,
    and wrapping each into an object of its own takes longer than reading it. Idempotent.
    """
    # aiokafka offers no way in.
    ahead = consumer._fetcher._records  # noqa: SLF001
    if not isinstance(ahead, _FetchedAhead):
        ahead = consumer._fetcher._records = _FetchedAhead(ahead, wraps=wraps)  # noqa: SLF001
    return ahead.unreadable


class _FetchedAhead(OrderedDict[Any, Any]):
    """What is fetched ahead, by partition."""

    def __init__(self, found: OrderedDict[Any, Any], *, wraps: bool) -> None:
        self.unreadable: Unreadable = {}
        self._wraps = wraps
        super().__init__(found)

    def __setitem__(self, tp: Any, result: Any) -> None:
        if isinstance(result, fetcher.FetchResult):
            records = result._partition_records  # noqa: SLF001
            if not self._wraps:
                records._consumer_record = _as_read  # noqa: SLF001
            records._records_iterator = self._guarded(tp, records)  # noqa: SLF001
        super().__setitem__(tp, result)

    def _guarded(self, tp: TopicPartition, records: fetcher.PartitionRecords) -> Iterator[Any]:
        first = records.next_fetch_offset
        try:
            yield from records._unpack_records()  # noqa: SLF001
        except Exception:  # noqa: BLE001 - codecs raise what they like
            # The position moves up to the fault: the first thing that the next fetch meets.
            if records.next_fetch_offset > first:
                return
            try:
                yield from _leniently(records)
            except Exception as error:  # noqa: BLE001 - likewise
                self.unreadable[tp] = error


def _as_read(_: object, record: Any) -> Any:
    return record


class _Batches:
    """Fetched batches, and the bytes that they are read from."""

    def __init__(self, data: bytes) -> None:
        records = MemoryRecords(data)
        self.data = data
        self.has_next = records.has_next
        self.next_batch = records.next_batch
        self.size_in_bytes = records.size_in_bytes


# The compiled reader keeps its bytes to itself, and nothing reads past a record that it refuses.
fetcher.MemoryRecords = _Batches


class _LenientBytes(bytearray):
    """Bytes of which any part decodes."""

    def __getitem__(self, at: Any) -> Any:
        part = super().__getitem__(at)
        return _LenientBytes(part) if isinstance(at, slice) else part

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        return super().decode(encoding, errors)


def _leniently(records: fetcher.PartitionRecords) -> Iterator[Any]:
    """Records of the batch that holds the next one, whatever their header names are."""
    wanted = records.next_fetch_offset
    batch = _batch_with(records._records.data, wanted)  # noqa: SLF001
    if not batch.validate_crc():
        raise ValueError("a record batch does not match its checksum")
    found = iter(batch)  # decompresses it
    batch._buffer = _LenientBytes(batch._buffer)  # noqa: SLF001
    for record in found:
        if record.offset >= wanted:
            records.next_fetch_offset = record.offset + 1
            yield records._consumer_record(records._tp, record)  # noqa: SLF001
    records.next_fetch_offset = batch.next_offset


def _batch_with(data: bytes, offset: int) -> _DefaultRecordBatchPy:
    at = 0
    while at + _FRAME.size <= len(data):
        _, length = _FRAME.unpack_from(data, at)
        end = at + _FRAME.size + length
        batch = _DefaultRecordBatchPy(data[at:end])
        if batch.magic < _OLD_FORMAT:
            break
        if batch.next_offset > offset:
            return batch
        at = end
    raise ValueError("no record batch of the present format has this offset")
