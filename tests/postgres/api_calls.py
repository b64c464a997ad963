"""Every request that the service answers, taken from its own routes and description.

Whoever adds an endpoint or a page adds it to the tests of access by that alone.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

# What a member may ask who administrates nothing (SPEC: `GET /v1/orgs/{org}/me`), and no more.
OWN: Final = frozenset({("GET", "/v1/orgs/{org}/me")})
# About no organisation: for everybody, or about the caller's own session.
OPEN: Final = frozenset(
    {"/openapi.json", "/docs", "/static", "/session", "/sign-in", "/sign-out"}
)  # fmt: skip

FORM_TYPE: Final = "application/x-www-form-urlencoded"
# Fields of all forms at once; each takes its own.
FORM: Final = urlencode(
    {
        "level": "new", "notes": "n", "expiry": "never", "revision": "1", "base_version": "0",
        "highly_engaged_min_events": "4", "moderate_min_events": "2", "activity_window_days": "90",
        "new_member_days": "60", "inactive_after_days": "180", "note": "",
    }
)  # fmt: skip
_ORDER: Final = ("GET", "PUT", "POST", "DELETE")


class Call(NamedTuple):
    """A request that is well-formed once `org` and `user` are filled in."""

    method: str
    path: str
    body: Any = None

    @property
    def is_page(self) -> bool:
        return self.path.startswith("/admin/")

    @property
    def is_own(self) -> bool:
        return (self.method, self.path) in OWN

    @property
    def writes(self) -> bool:
        """Whether it changes anything. What is only tried out does not."""
        return self.method != "GET" and not self.path.endswith("/preview")

    def at(self, org: str, user: str) -> str:
        return self.path.format(org=org, user=user)

    def content(self) -> dict[str, Any]:
        """Arguments of the client."""
        if self.is_page and self.method == "POST":
            return {"content": FORM.encode(), "headers": {"Content-Type": FORM_TYPE}}
        return {} if self.body is None else {"json": self.body}


def calls_of(app: FastAPI) -> list[Call]:
    """All of them below an organisation: reads first, erasure last."""
    paths = app.openapi()["paths"]
    found = []
    for route in iter_route_contexts(app.routes):
        path = str(route.path)
        if "{org}" not in path:
            assert path in OPEN, f"{path}: below no organisation, so who may see it?"
            continue
        for method in sorted(route.methods or ()):
            described = paths.get(path, {}).get(method.lower())
            assert (described is not None) is path.startswith("/v1/"), (method, path)
            found.append(Call(method, path, _example(app, described or {})))
    # Of deletions, the longer address first: without the member, the rest is gone.
    found.sort(key=lambda call: (_ORDER.index(call.method), -len(call.path)))
    return found


def _example(app: FastAPI, operation: dict[str, Any]) -> Any:
    """The body that the description gives as an example."""
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        return None
    schema = content["application/json"]["schema"]
    reference = next(s["$ref"] for s in (schema, *schema.get("anyOf", ())) if "$ref" in s)
    name = reference.rpartition("/")[2]
    return app.openapi()["components"]["schemas"][name]["examples"][0]
