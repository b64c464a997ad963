"""Record batches as no well-meant client makes them."""

from __future__ import annotations

import struct
from typing import Final

from aiokafka.record.util import calc_crc32c

NAME: Final = "header-name"
# What NAME becomes: as long, and no UTF-8.
NO_TEXT: Final = b"\\xff\\xfeader-name".decode("unicode_escape").encode("latin-1")
READ_AS: Final = NO_TEXT.decode("utf-8", "replace")

_CRC_AT: Final = 17
_CHECKED_FROM: Final = 21


def with_odd_names(batch: bytes) -> bytes:
    """An uncompressed record batch whose header names NAME are no UTF-8; its checksum is right."""
    assert NAME.encode() in batch
    spoilt = bytearray(batch.replace(NAME.encode(), NO_TEXT))
    struct.pack_into(">I", spoilt, _CRC_AT, calc_crc32c(bytes(spoilt[_CHECKED_FROM:])))
    return bytes(spoilt)


def damaged(batch: bytes) -> bytes:
    """A record batch whose checksum is wrong."""
    return batch[:-1] + bytes([batch[-1] ^ 1])
