"""One record as a producer would send it."""

import json
from collections.abc import Mapping
from typing import NamedTuple


class InputRecord(NamedTuple):
    """`kind` names the topic (attendance, rsvp, profile-update, membership, organization)."""

    kind: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def key_of(body: Mapping[str, str]) -> bytes:
    """The key that the record of this body is sent with: its ids, as far as it has them."""
    return ":".join(body[name] for name in ("org_id", "user_id") if name in body).encode()


def value_of(body: Mapping[str, object]) -> bytes:
    """The body as compact UTF-8 JSON."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
