"""The Faust app: `faust -A streams.app worker -l info`, or `engagement worker`.

Importing declares; nothing is opened before the app starts on its event loop.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Mapping
from typing import Any, Final, cast

import faust
import structlog
from aiokafka.errors import KafkaError
from faust.types import TP

from db.pool import tls_arguments
from service.classifier import choice
from service.errors import EngagementError, Retryable, SettingsError
from service.interpreter import COLLECT_AFTER_IN_BULK, prepare_interpreter
from service.settings import Settings, load_settings
from streams import agents, health, timers, watchdog
from streams.connection import client_arguments, tls_context
from streams.runtime import Runtime
from streams.transport import BatchApp, BatchConsumer
from streams.worker import EngagementWorker

log = structlog.get_logger(__name__)

STOP_DRAIN_S: Final = 5.0
# Of one partition at a time. With the usual 1 MiB the lanes waited for records a sixth of the time.
MAX_FETCH_BYTES: Final = 4 << 20


class EngagementApp(BatchApp):
    """The worker. Waits for its parts before it consumes; hands over when it stops."""

    settings: Settings
    runtime: Runtime
    # By the monotonic clock; None while no rebalance runs.
    rebalancing_since: float | None = None
    has_settled = False

    @property
    def batch_consumer(self) -> BatchConsumer:
        """The consumer by its own type."""
        return cast("BatchConsumer", self.consumer)

    @property
    def is_open(self) -> bool:
        """Whether database and topics were there, so that work could begin."""
        return hasattr(self, "lanes")

    async def on_first_start(self) -> None:
        """Faust would create a data folder here; this service keeps nothing on disk."""

    async def on_start(self) -> None:
        """Wait for database and topics, then open; the consumer starts after this."""
        log.info("worker_starting", action="start", group=self.settings.consumer_group,
                 probes=f"http://{self.conf.web_bind}:{self.conf.web_port}/readyz")  # fmt: skip
        self.runtime = Runtime(self.settings)
        # Faust would open the operators' port once everything has started: too late for whoever
        # wants to know what a worker waits for.
        try:
            await self.web.maybe_start()
        except OSError as error:
            reason = f"ENGAGEMENT_WORKER_OPS_PORT: cannot be bound: {error.strerror}"
            log.critical("worker_refused", action="stop", reason=reason)
            raise SystemExit(2) from error
        try:
            ready = await self.runtime.wait_for_parts(lambda: self.should_stop)
        except EngagementError as error:
            log.critical("worker_refused", action="stop", reason=str(error))
            raise SystemExit(1) from error
        if ready:
            await self.runtime.open(ranges=self._ranges, crash=self.crash)
            self.lanes = self.runtime.lanes
            self.lanes.seek = self.batch_consumer.seek_claimed
            await super().on_start()

    async def on_started(self) -> None:
        """Start evaluating and relaying beside the agents."""
        await super().on_started()
        if not self.should_stop:
            self.runtime.start_loops(self.crash, watchdog.Watchdog(self, self.settings))
            prepare_interpreter(COLLECT_AFTER_IN_BULK)
            log.info("worker_started", action="start", schema=self.runtime.schema_version)

    def on_rebalance_start(self) -> None:
        """Note when it began."""
        self.rebalancing_since = self.rebalancing_since or time.monotonic()
        super().on_rebalance_start()

    def on_rebalance_end(self) -> None:
        """Note that what is assigned has been claimed, or will be in the background."""
        self.rebalancing_since, self.has_settled = None, True
        super().on_rebalance_end()

    def rebalancing_for_s(self) -> float:
        """How long the present rebalance has taken; 0 when there is none."""
        since = self.rebalancing_since
        return 0.0 if since is None else time.monotonic() - since

    async def crash(self, reason: BaseException) -> None:
        """End the process with an error, by force if what is left of it hangs."""
        watchdog.end_within(watchdog.CRASH_LIMIT_S, exit_code=1)
        await super().crash(reason)

    async def on_stop(self) -> None:
        """Finish the batches in flight while the consumer still belongs to the group."""
        crashed = self.crash_reason is not None
        watchdog.end_within(watchdog.STOP_LIMIT_S, exit_code=1 if crashed else 0)
        if self.is_open:
            await self.lanes.release(STOP_DRAIN_S)
        await super().on_stop()

    async def on_shutdown(self) -> None:
        """Close what `on_start` opened."""
        await super().on_shutdown()
        if hasattr(self, "runtime"):
            await self.runtime.close()
        log.info("worker_stopped", action="stop")

    async def _ranges(self, tps: Collection[TP]) -> Mapping[TP, tuple[int, int]]:
        try:
            first = await self.consumer.earliest_offsets(*tps)
            end = await self.consumer.highwaters(*tps)
        except KafkaError as error:
            raise Retryable(f"broker: {type(error).__name__}: {error}") from error
        return {tp: (first[tp], end[tp]) for tp in tps}


def build(settings: Settings) -> EngagementApp:
    """An app for these settings; declares agents, timers and pages. Raises SettingsError."""
    # Refuses what the connections would refuse later, in the middle of a start.
    client_arguments(settings)
    tls_arguments(settings)
    choice.check(settings)
    made = EngagementApp(
        settings.consumer_group,
        broker=[
            f"kafka://{server.strip()}" for server in settings.kafka_bootstrap_servers.split(",")
        ],
        broker_credentials=_credentials(settings),
        origin="streams",
        autodiscover=False,
        store="memory://",
        stream_wait_empty=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        processing_guarantee="at_least_once",
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=MAX_FETCH_BYTES,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=min(3.0, settings.session_timeout_s / 5),
        broker_request_timeout=90.0,
        broker_rebalance_timeout=60.0,
        broker_max_poll_interval=3600.0,
        broker_max_poll_records=settings.batch_max_records * settings.active_partitions,
        agent_supervisor="mode.CrashingSupervisor",
        web_enabled=True,
        web_bind=settings.worker_ops_host,
        web_host=settings.worker_ops_host,
        web_port=settings.worker_ops_port,
        worker_redirect_stdouts=False,
        Worker=EngagementWorker,
    )
    made.settings = settings
    agents.declare(made, settings)
    timers.declare(made)
    health.declare(made)

    @made.on_partitions_revoked.connect  # type: ignore[arg-type]  # mode's callback types
    async def revoked(_app: Any, _revoked: set[TP], **_: Any) -> None:
        if made.is_open:
            await made.runtime.commit_advisory(made.batch_consumer.commit_advisory)
            await made.lanes.release()

    return made


def _credentials(settings: Settings) -> Any:
    protocol = settings.kafka_security_protocol
    context = tls_context(settings)
    if protocol == "SSL":
        return faust.SSLCredentials(context=context)
    if protocol.startswith("SASL") and settings.kafka_sasl_password is not None:
        return faust.SASLCredentials(
            username=settings.kafka_sasl_username,
            password=settings.kafka_sasl_password.get_secret_value(),
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
    return None


def _build_from_environment() -> EngagementApp:
    try:
        return build(load_settings())
    except SettingsError as error:
        sys.stderr.write(f"wrong settings: {error}\n")
        sys.exit(2)


app = _build_from_environment()
