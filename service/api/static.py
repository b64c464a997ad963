"""Files that pages load, all from here."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Final

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC: Final = Path(__file__).parent / "static"

# A file's address holds its content's hash, so a browser may keep it.
KEEP: Final = "public, max-age=31536000, immutable"
REVALIDATE: Final = "no-cache"


class StaticAssets(StaticFiles):
    """Static files; those asked for by hash may be kept."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """The file, with how long it may be kept."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        by_hash = scope.get("query_string", b"").startswith(b"v=")
        response.headers["Cache-Control"] = KEEP if by_hash else REVALIDATE
        return response


@cache
def asset(path: str) -> str:
    """The address of a static file, with its hash."""
    digest = hashlib.sha256((STATIC / path).read_bytes()).hexdigest()[:12]
    return f"/static/{path}?v={digest}"
