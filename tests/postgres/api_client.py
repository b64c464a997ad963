"""The API in this process, on a real database, and somebody who calls it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx2
from fastapi import FastAPI

from db.actions import ActionParts
from db.api_store import ApiStore
from service.api.app import create_app
from service.api.services import Services
from service.api.tokens import development_token, verifier_from
from service.settings import Settings, load_settings
from tests.api_community import ADMIN, ORG, Community, settle

SECRET = "a-development-secret-of-the-tests-only"
HOST = "http://127.0.0.1"


def settings_for(dsn: str, **more: str) -> Settings:
    return load_settings({"DATABASE_URL": dsn, "ENGAGEMENT_JWT_DEV_SECRET": SECRET, **more})


@dataclass
class Api:
    """An app with its database and a client that speaks for anybody."""

    app: FastAPI
    client: httpx2.AsyncClient
    community: Community
    settings: Settings
    store: ApiStore

    def token(self, user_id: str) -> str:
        return development_token(self.settings, user_id, timedelta(minutes=5))

    async def call(
        self, method: str, path: str, user_id: str | None = ADMIN, **arguments: Any
    ) -> httpx2.Response:
        """Call `path` as somebody, None: without credentials."""
        headers = dict(arguments.pop("headers", {}))
        if user_id is not None:
            headers["Authorization"] = f"Bearer {self.token(user_id)}"
        return await self.client.request(method, path, headers=headers, **arguments)

    async def get(self, path: str, user_id: str | None = ADMIN, **query: Any) -> httpx2.Response:
        """GET below the organisation of the tests."""
        return await self.call("GET", f"/v1/orgs/{ORG}{path}", user_id, params=query)


@asynccontextmanager
async def running_api(dsn: str, **more: str) -> AsyncIterator[Api]:
    """The API over a settled community."""
    community = await settle(dsn)
    settings = settings_for(dsn, **more)
    parts = ActionParts(settings)
    store = await ApiStore.open(settings, parts, prepare=parts.prepare)
    try:
        services = Services(
            store,
            verifier_from(settings),
            implicit_membership=settings.implicit_membership,
            development=True,
        )
        app = create_app(services)
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url=HOST) as client:
            yield Api(app, client, community, settings, store)
    finally:
        await store.close()
        await community.connection.close()
