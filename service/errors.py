"""The error tree. What happens next is in the type: retry, dead-letter, tell the user, or crash.

EngagementError
  Retryable             a part is away or busy: keep the work, back off, try again
    NotReady            something has to be set up first; the message says what to run
  DeadLetter            this record can never be applied; carries the code of the contract
  PartitionLost         our claim on a partition is over; forget its work
    Fenced              another worker holds it
    OutOfSequence       the stored offset is not where we thought: seek and go on
  Refused               a use case says no; shown to whoever asked
    InvalidThresholds   the numbers make no sense together
    NotFound            no such organisation or member
    Conflict            the state has moved on, or does not allow it
    Stale               the caller looked at an older revision
  SettingsError         wrong configuration: stop the start, name the setting

Anything else is a defect and ends the process.
"""

from __future__ import annotations

from enum import StrEnum


def plain(message: str) -> str:
    """What a validator of ours said, without what the library puts before it."""
    return message.removeprefix("Value error, ")


class EngagementError(Exception):
    """Root of every error this service raises on purpose."""


class Retryable(EngagementError):
    """A part is away or busy; nothing was changed, or the change is known to be repeatable."""


class NotReady(Retryable):
    """Something has to be set up first; the message says what to run."""


class DeadLetterCode(StrEnum):
    """Why a record can never be applied, in the order in which the checks are made."""

    TOO_LARGE = "too_large"
    NULL_VALUE = "null_value"
    NOT_JSON = "not_json"
    SCHEMA = "schema"
    BAD_ID = "bad_id"
    NAIVE_TIME = "naive_time"
    FUTURE_DATED = "future_dated"
    REJECTED = "rejected"


class DeadLetter(EngagementError):
    """This record can never be applied."""

    def __init__(self, code: DeadLetterCode, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class PartitionLost(EngagementError):
    """Our claim on a partition is over."""


class Fenced(PartitionLost):
    """Another worker has claimed the partition since."""


class OutOfSequence(PartitionLost):
    """The stored offset is not the one this batch starts at."""


class Refused(EngagementError):
    """A use case says no. The message is fit to be shown to an administrator."""


class InvalidThresholds(Refused):
    """The numbers make no sense together."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field} {problem}" for field, problem in problems))
        self.problems = problems


class InvalidInput(Refused):
    """A value given by the caller is not acceptable."""


class NotFound(Refused):
    """No such organisation or member."""


class Conflict(Refused):
    """The state does not allow it."""


class Stale(Refused):
    """The caller looked at an older revision."""


class SettingsError(EngagementError):
    """Wrong configuration; the message names the setting."""
