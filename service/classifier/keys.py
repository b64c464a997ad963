"""The key under which an answer is shared: everything that Claude is told, and who is told it."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

from service.classifier.prompt import PROMPT_VERSION
from service.classifier.situation import Situation, to_json

TAG_BYTES: Final = 4
KEY_BYTES: Final = 32


@lru_cache(maxsize=64)
def _tag(model: str) -> bytes:
    return hashlib.sha256(f"{model}\0{PROMPT_VERSION}".encode()).digest()[:TAG_BYTES]


@lru_cache(maxsize=65_536)
def verdict_key(situation: Situation, model: str) -> bytes:
    """32 bytes of SHA-256 over situation (thresholds included), prompt version and model.

    The first bytes stand for model and prompt version alone, so that `is_current` needs no more.
    """
    content = f"{model}\0{PROMPT_VERSION}\0{to_json(situation)}"
    digest = hashlib.sha256(content.encode()).digest()
    return _tag(model) + digest[: KEY_BYTES - TAG_BYTES]


def is_current(key: bytes, model: str) -> bool:
    """Whether a stored key is of this model and this release's prompt."""
    return key.startswith(_tag(model))


def key_tag(model: str) -> bytes:
    """How every key of this model and this release's prompt begins."""
    return _tag(model)
