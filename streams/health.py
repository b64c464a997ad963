"""`/livez`, `/readyz` and `/metrics` of a worker, on Faust's own web server.

Alive: the loop turns and the consumer asks for records, however idle the topics are. Ready: every
assigned partition is claimed and none has stopped; a rebalance or a claim may take a while before
that changes. Neither looks at Kafka, PostgreSQL or Claude being reachable: restarting a worker does
not mend those.
"""

from __future__ import annotations

import time
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

POLL_SILENCE_S: Final = 120.0
REBALANCE_S: Final = 60.0
UNCLAIMED_S: Final = 30.0


def declare(app: Any) -> None:
    """Declare the pages."""

    @app.page("/livez")
    async def livez(self: Any, _request: Any) -> Any:
        # Until the parts are there, waiting is all there is to do.
        silence_s = time.monotonic() - app.lanes.last_polled_at if app.is_open else 0.0
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
    if not app.is_open:
        return {"parts": "waiting for database and topics"}
    lanes = app.lanes
    rebalancing_s, unclaimed_s = app.rebalancing_for_s(), lanes.unclaimed_for_s()
    stopped = [f"{tp.topic}/{tp.partition}" for tp in lanes.stopped]
    unreadable = [f"{tp.topic}/{tp.partition}: {why}"
                  for tp, why in lanes.unreadable_partitions.items()]  # fmt: skip
    return {
        "group": "ok" if app.has_settled else "joining",
        "rebalance": "ok" if rebalancing_s < REBALANCE_S else f"for {rebalancing_s:.0f} s",
        "claims": "ok" if unclaimed_s < UNCLAIMED_S
        else f"{lanes.unclaimed} partitions unclaimed for {unclaimed_s:.0f} s",
        "partitions": "ok" if not stopped
        else f"stopped: {', '.join(stopped)}: run `engagement dlq resume`",
        "records": "ok" if not unreadable else f"unreadable: {', '.join(unreadable)}",
    }  # fmt: skip
