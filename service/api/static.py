"""Files that pages load, all from here, and the page that shows the API's description."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from mimetypes import guess_type
from pathlib import Path
from typing import Final

from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC: Final = Path(__file__).parent / "static"

# A file's address holds its content's hash, so a browser may keep it.
KEEP: Final = "public, max-age=31536000, immutable"
REVALIDATE: Final = "no-cache"


def _on_disk(path: str) -> Path:
    """Large files are kept, and served, compressed."""
    plain = STATIC / path
    return plain if plain.exists() else plain.with_name(plain.name + ".gz")


class StaticAssets(StaticFiles):
    """Static files; those asked for by hash may be kept."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """The file, or its compressed form."""
        found, stat_result = super().lookup_path(path)
        if stat_result is None and not path.endswith(".gz"):
            found, stat_result = super().lookup_path(path + ".gz")
        return found, stat_result

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """The file, with how long it may be kept."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        if str(full_path).endswith(".gz"):
            plain = str(full_path).removesuffix(".gz")
            response.headers["Content-Encoding"] = "gzip"
            response.headers["Content-Type"] = guess_type(plain)[0] or "text/plain"
        by_hash = scope.get("query_string", b"").startswith(b"v=")
        response.headers["Cache-Control"] = KEEP if by_hash else REVALIDATE
        return response


@cache
def asset(path: str) -> str:
    """The address of a static file, with its hash."""
    digest = hashlib.sha256(_on_disk(path).read_bytes()).hexdigest()[:12]
    return f"/static/{path}?v={digest}"


async def docs_page() -> HTMLResponse:
    """The API's description, readable and to be tried out."""
    return HTMLResponse(
        f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Engagement scoring API</title>
<link rel="icon" href="{asset("icon.svg")}">
<link rel="stylesheet" href="{asset("vendor/swagger-ui.css")}">
</head>
<body>
<div id="docs"></div>
<noscript><p>This page needs JavaScript. The description itself is at
<a href="/openapi.json">/openapi.json</a>.</p></noscript>
<script src="{asset("vendor/swagger-ui-bundle.js")}"></script>
<script src="{asset("docs.js")}"></script>
</body>
</html>
"""
    )
