"""Message keys are hashed as by every other Kafka client."""

from __future__ import annotations

from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from streams.partition_batches import Key


@given(st.text(max_size=40))
def test_keys_are_hashed_as_the_client_hashes_them(text: str) -> None:
    key = Key.of(text)
    assert key.value == text.encode()
    assert key.hashed == murmur2(text.encode()) & 0x7FFFFFFF
