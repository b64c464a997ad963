"""What operators ask: alive, ready, metrics. On a port of its own, without authentication."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Check = Callable[[], Awaitable[Mapping[str, str]]]


def create_ops_app(check: Check) -> Starlette:
    """`/livez` never asks others; `/readyz` is what `check` says: name -> "ok" or what is wrong."""

    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        checks = await check()
        ready = all(state == "ok" for state in checks.values())
        body = {"status": "ok" if ready else "unavailable", "checks": dict(checks)}
        return JSONResponse(body, status_code=200 if ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]
    )
