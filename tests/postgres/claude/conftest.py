"""A scene per test; the fake Claude is one for a module."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from service.demo.fake_claude import FakeClaude
from service.demo.fake_messages import Act
from tests.postgres.claude.scene import Scene, open_scene


@pytest.fixture(scope="module")
def server() -> Iterator[FakeClaude]:
    with FakeClaude() as fake:
        yield fake


@pytest.fixture
async def scene(database: str, server: FakeClaude) -> AsyncIterator[Scene]:
    server.otherwise = Act.NORMAL
    async with open_scene(database, server) as scene:
        yield scene
