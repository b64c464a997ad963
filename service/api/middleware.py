"""What holds for every request: an id, limits, headers, one log line, and no bare errors."""

from __future__ import annotations

import secrets
import time
from typing import Any, Final

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import INTERNAL, MEDIA_TYPE, Problem, unavailable
from service.metrics import METRICS

MAX_BODY_BYTES: Final = 64 * 1024
MAX_IN_FLIGHT: Final = 200

# Pages load nothing from elsewhere and run nothing inline.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: with it, browsers send forms with the origin "null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})

log = structlog.get_logger(__name__)


def request_id_of(scope: Scope) -> str:
    """The id given to this request; made here, since a caller's own would be an echo."""
    state: dict[str, Any] = scope.setdefault("state", {})
    request_id: str = state.setdefault("request_id", secrets.token_hex(8))
    return request_id


class RequestMiddleware:
    """Wraps the whole app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; other kinds of scope pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":
            # The same as GET, but for the body: routes need not know of it.
            scope = {**scope, "method": "GET"}
        exchange = _Exchange(scope, receive, send, method)
        self._in_flight += 1
        try:
            if self._in_flight > MAX_IN_FLIGHT:
                await exchange.answer(unavailable())
            else:
                await self._app(scope, exchange.receive, exchange.send)
        except Problem as problem:
            await exchange.answer(problem)
        except Exception as error:  # whatever it is, the caller gets a problem and we go on
            log.exception("request_failed", action="request", error=type(error).__name__)
            await exchange.answer(Problem(500, "internal", INTERNAL))
        finally:
            self._in_flight -= 1
            exchange.finish()


def _route(scope: Scope) -> str:
    """The address with names in place of ids, which is what metrics and logs may hold."""
    path, parameters = scope["path"], scope.get("path_params", {})
    if scope.get("route") is None or "path" in parameters:
        return "none"
    parts = [part for part in path.split("/") if part]
    names = {value: f"{{{name}}}" for name, value in parameters.items()}
    return "/" + "/".join(names.get(part, part) for part in parts)


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, method: str) -> None:
        self._scope = scope
        self._method = method
        self._receive = receive
        self._send = send
        self._started_at = time.perf_counter()
        self._received_bytes = 0
        self._status: int | None = None
        self._request_id = request_id_of(scope)

    async def receive(self) -> Message:
        """The next part of the request. Raises Problem when the body gets too large."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._received_bytes += len(message.get("body", b""))
            if self._received_bytes > MAX_BODY_BYTES:
                raise Problem(
                    413, "too-large", f"The body may have at most {MAX_BODY_BYTES} bytes."
                )
        return message

    async def send(self, message: Message) -> None:
        """The next part of the response, with what every response has."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
            headers["X-Request-ID"] = self._request_id
        elif self._method == "HEAD" and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)

    async def answer(self, problem: Problem) -> None:
        """Send a problem, unless a response is already on its way."""
        if self._status is not None:
            return
        body = problem.body(self._request_id)
        headers = {
            "content-type": MEDIA_TYPE,
            "content-length": str(len(body)),
            "connection": "close",
            **problem.headers,
        }
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": problem.status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body})

    def finish(self) -> None:
        """Count and log."""
        seconds = time.perf_counter() - self._started_at
        route = _route(self._scope)
        method = self._method if self._method in _METHODS else "other"
        status = str(self._status or 0)
        METRICS.http_requests.labels(method, route, status).inc()
        METRICS.http_seconds.labels(method, route).observe(seconds)
        # The route, not the path: ids are for the histories.
        # Pages ask every few seconds: what was read without trouble is for metrics.
        quiet = method in ("GET", "HEAD") and (self._status or 500) < 500  # noqa: PLR2004
        (log.debug if quiet else log.info)(
            "request",
            action="request",
            method=method,
            route=route,
            status=self._status,
            ms=round(seconds * 1000, 1),
            request_id=self._request_id,
        )
