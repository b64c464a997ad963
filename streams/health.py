"""`/livez`, `/readyz` and `/metrics` of a worker, on Faust's own web server.

Alive: the loop turns and the consumer asks for records, however idle the topics are. Ready: every
assigned partition is claimed and none has stopped. Neither looks at Kafka, PostgreSQL or Claude
being reachable: restarting a worker does not mend those.
"""

from __future__ import annotations

import time
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

POLL_SILENCE_S: Final = 120.0


def declare(app: Any) -> None:
    """Declare the pages."""

    @app.page("/livez")
    async def livez(self: Any, _request: Any) -> Any:
        silence_s = time.monotonic() - app.lanes.last_polled_at
        alive = silence_s < POLL_SILENCE_S or app.rebalancing
        return self.json(
            {"status": "ok" if alive else "silent", "last_poll_s": round(silence_s, 1)},
            status=200 if alive else 503,
        )

    @app.page("/readyz")
    async def readyz(self: Any, _request: Any) -> Any:
        checks = readiness(app)
        ready = all(value == "ok" for value in checks.values())
        return self.json(
            {"status": "ok" if ready else "not ready", "checks": checks,
             "schema": app.runtime.schema_version},
            status=200 if ready else 503,
        )  # fmt: skip

    @app.page("/metrics")
    async def metrics(self: Any, _request: Any) -> Any:
        return self.bytes(generate_latest(), content_type=CONTENT_TYPE_LATEST.split(";")[0])


def readiness(app: Any) -> dict[str, str]:
    """What readiness depends on: name -> "ok" or what is wrong."""
    lanes = app.lanes
    stopped = [f"{tp.topic}/{tp.partition}" for tp in lanes.stopped]
    return {
        "rebalance": "running" if app.rebalancing else "ok",
        "claims": "ok" if not lanes.unclaimed else f"{lanes.unclaimed} partitions unclaimed",
        "partitions": "ok" if not stopped
        else f"stopped: {', '.join(stopped)}: run `engagement dlq resume`",
    }  # fmt: skip
