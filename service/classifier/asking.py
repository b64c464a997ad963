"""Asking Claude, seen from outside: what comes back, and how it fails. No SDK in here."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Protocol


class Request(NamedTuple):
    """One question: plain texts, no personal data."""

    system: str
    message: str


class ToolCall(NamedTuple):
    """One call of a tool, as it came, unchecked."""

    name: str
    input: Mapping[str, Any]


class Usage(NamedTuple):
    """Tokens that were billed."""

    input_tokens: int
    output_tokens: int

    @property
    def tokens(self) -> int:
        """In and out."""
        return self.input_tokens + self.output_tokens


class Reply(NamedTuple):
    """An answer that arrived whole; whether it is any good, the guard says."""

    stop_reason: str | None
    calls: tuple[ToolCall, ...]
    usage: Usage


class Failure(StrEnum):
    """Why no answer arrived."""

    RATE_LIMITED = "rate_limited"  # 429: our limits
    OVERLOADED = "overloaded"  # 529: theirs
    TIMEOUT = "timeout"
    SERVER_ERROR = "server_error"  # other 5xx
    CONNECTION = "connection"  # refused, reset, cut off
    UNREADABLE = "unreadable"  # success, but not a message
    DENIED = "denied"  # 401, 402, 403, 404: key, credit, rights, unknown model
    REJECTED = "rejected"  # other 4xx: they do not accept the request as it is
    UNEXPECTED = "unexpected"  # a defect of ours: what came could not be dealt with


class CallFailed(Exception):
    """No answer. `retry_after_s` is what the server asked for, unbounded.

    `maybe_billed`: the server may have done the work all the same.
    """

    def __init__(
        self,
        failure: Failure,
        message: str,
        *,
        retry_after_s: float | None = None,
        maybe_billed: bool = False,
    ) -> None:
        super().__init__(f"{failure}: {message}")
        self.failure = failure
        self.retry_after_s = retry_after_s
        self.maybe_billed = maybe_billed


class Asker(Protocol):
    """Puts one request to a model."""

    async def ask(self, request: Request) -> Reply:
        """One attempt, no retry, within its own time limit; raises CallFailed."""
        ...

    async def aclose(self) -> None:
        """Hang up."""
        ...
