"""What operators ask: alive, ready, metrics. On a port of its own, without authentication."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.api.ports import Store


def create_ops_app(store: Store, *, is_stopping: Callable[[], bool]) -> Starlette:
    """`/livez` never asks others; `/readyz` asks the database, and fails once we are stopping."""

    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        checks: Mapping[str, str] = {**await store.check()}
        if is_stopping():
            checks = {**checks, "process": "stopping"}
        ready = all(state == "ok" for state in checks.values())
        body = {"status": "ok" if ready else "unavailable", "checks": dict(checks)}
        return JSONResponse(body, status_code=200 if ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]
    )
