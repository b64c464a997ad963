"""Small pieces of work share a transaction, as databases let small transactions share a flush.

A steady stream brings each partition a few records at a time. A transaction for each would cost
many times what is in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

import structlog

from service.errors import Retryable

Part = TypeVar("Part")

# What was fetched at once arrives within this time.
GATHER_S: Final = 0.002

log = structlog.get_logger(__name__)


class GroupCommit(Generic[Part]):
    """Whatever comes while one transaction is under way shares the next one."""

    def __init__(
        self,
        commit: Callable[[Sequence[Part]], Awaitable[None]],
        size_of: Callable[[Part], int],
        most: int,
    ) -> None:
        """`commit` does all parts or none; their sizes sum up to `most`, or it is only one."""
        self._commit = commit
        self._size_of = size_of
        self._most = most
        self._waiting: list[tuple[Part, asyncio.Future[bool]]] = []
        self._committing: asyncio.Task[None] | None = None

    async def commit(self, part: Part) -> bool:
        """Commit with whoever else comes; False when nothing was done, and each goes alone.

        Raises Retryable when it may have been done.
        """
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((part, done))
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_all(), name="group commit")
        return await done

    async def _commit_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER_S)
            group = self._next_group()
            try:
                await self._commit([part for part, _ in group])
            except Retryable as error:
                for _, done in _still_awaited(group):
                    done.set_exception(Retryable(str(error)))
            except Exception as error:  # noqa: BLE001 - whose it is, shows when each goes alone
                log.info("group_split", action="retry", parts=len(group),
                         error=type(error).__name__)  # fmt: skip
                for _, done in _still_awaited(group):
                    done.set_result(False)
            except BaseException:
                # The loop is being closed: nobody is left waiting.
                for _, done in group:
                    done.cancel()
                raise
            else:
                for _, done in _still_awaited(group):
                    done.set_result(True)

    def _next_group(self) -> list[tuple[Part, asyncio.Future[bool]]]:
        size, count = 0, 0
        for part, _ in self._waiting:
            size += self._size_of(part)
            if count and size > self._most:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group


def _still_awaited(
    group: Sequence[tuple[Part, asyncio.Future[bool]]],
) -> list[tuple[Part, asyncio.Future[bool]]]:
    return [(part, done) for part, done in group if not done.done()]
