"""What the database's errors mean for the work in hand: try again, or never."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from service.errors import EngagementError, NotReady, Retryable, SettingsError


class DataRefused(EngagementError):
    """The database refuses these values (SQLSTATE class 22 or 23); other values may pass."""


class LacksRights(EngagementError):
    """The login may not do this; the message says which one may. Trying again helps nobody."""


# By class or full SQLSTATE; nothing was changed, or the caller finds out what was.
_RETRY_CLASSES: Final = ("08", "40", "53", "57", "58")
_RETRY_STATES: Final = frozenset(
    {
        "25006",  # read-only: a standby, or a primary that was demoted
        "25P02",  # an earlier statement of the transaction failed
        "25P03",  # idle in transaction for too long: we were paused
        "25P04",  # transaction timeout: we were slow
        "55P03",  # lock not available in time
        "55006",  # object in use
    }
)
_REFUSED_LOGIN_CLASS: Final = "28"
_NO_DATABASE: Final = "3D000"
_MISSING_STATES: Final = frozenset({"3F000", "42P01", "42703", "42883"})


LOGINS: Final = (
    "workers and commands need a login of the role engagement_worker, the API one of "
    "engagement_api, `engagement migrate` the owner of the schema"
)


@contextmanager
def translated(*, needs: str = LOGINS) -> Iterator[None]:
    """Turn the driver's and the server's errors into ours; anything else passes unchanged.

    `needs` is said where the login lacks a right.
    """
    try:
        yield
    except asyncpg.InsufficientPrivilegeError as error:
        # A hint names the very statement that helps.
        advice = "" if getattr(error, "hint", None) else f": {needs}, see docs/deploy.md"
        raise LacksRights(f"database: {error}{advice}") from error
    except asyncpg.PostgresError as error:
        raise _translate(error) from error
    except asyncpg.ClientConfigurationError as error:
        raise SettingsError(f"DATABASE_URL: {error}") from None
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
        raise Retryable(f"database: {type(error).__name__}: {error}") from error


def _translate(error: asyncpg.PostgresError) -> Exception:
    state = getattr(error, "sqlstate", None) or ""
    if state[:2] in ("22", "23"):
        return DataRefused(f"{state} {error}")
    if state == _NO_DATABASE:
        return NotReady(f"{error}: create it, or correct DATABASE_URL; then `engagement migrate`")
    if state[:2] == _REFUSED_LOGIN_CLASS:
        return NotReady(f"{error}: the server refuses the user or password of DATABASE_URL")
    if state in _MISSING_STATES:
        return NotReady(f"database: {error}: run `engagement migrate`")
    if state[:2] in _RETRY_CLASSES or state in _RETRY_STATES:
        return Retryable(f"database: {state} {error}")
    return error
