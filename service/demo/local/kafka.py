"""A real Apache Kafka (KRaft) as child processes: loopback only, gone when we are gone.

The jars come from kafka_jars, the Java runtime from java. Each node is broker and
controller in one.
"""

from __future__ import annotations

import base64
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from service.demo.local import folders
from service.demo.local.java import SHORT_LIVED, java_command
from service.demo.local.kafka_node import HOST, Node, properties_text
from service.demo.local.kafka_wire import brokers_known_to
from service.demo.local.keeper import CLEAN_ENVIRONMENT, Keeper, LocalServerError, tail
from service.demo.local.ports import free_port, require_free

JAVA_OPTIONS = ("-Xmx320m", "-Xms64m", *SHORT_LIVED)
POLL_S = 0.05
STOP_TIMEOUT_S = 30.0
FORMAT_TIMEOUT_S = 60.0
PORT_ATTEMPTS = 5


class LocalKafka:
    """A Kafka cluster of `nodes` nodes; blocking, so call it by `asyncio.to_thread` from a loop.

    Without `data_dir` the data is temporary and goes with `close` or with this process. With it,
    the folder is made if missing, and a later cluster on it finds topics and ports again. `port`
    is the first node's plaintext port; without it free ports are found at the first start and
    kept. `extra_properties` are broker properties that win over ours. `extra_listeners` are more
    listeners by name with their security protocol, for example ``{"SECURE": "SASL_SSL"}``; their
    key stores and logins are extra properties (``listener.name.secure...``).
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        port: int | None = None,
        nodes: int = 1,
        extra_properties: Mapping[str, str] | None = None,
        *,
        extra_listeners: Mapping[str, str] | None = None,
        java_options: Sequence[str] = JAVA_OPTIONS,
        start_timeout_s: float = 60.0,
    ) -> None:
        """Prepare; nothing runs yet but the leash. Raises LocalServerError."""
        self.temporary = data_dir is None
        self.folder = (data_dir or folders.temporary_folder("kafka")).resolve()
        folders.make_folder(self.folder)
        self.nodes = [
            Node(number, self.folder / f"node-{number}") for number in range(1, nodes + 1)
        ]
        self.extra_properties = dict(extra_properties or {})
        self.extra_listeners = dict(extra_listeners or {})
        self.java_options = tuple(java_options)
        self.start_timeout_s = start_timeout_s
        self._given_port = port
        self._keeper = Keeper(self.folder, temporary=self.temporary)

    @property
    def bootstrap(self) -> str:
        """``host:port`` of every node's plaintext listener, comma-separated."""
        return self.bootstrap_of("PLAINTEXT")

    def bootstrap_of(self, listener: str) -> str:
        """The same for an extra listener. Raises LocalServerError before the first start."""
        if not all(node.ports for node in self.nodes):
            message = "the cluster was never started, so it has no ports yet"
            raise LocalServerError(message)
        return ",".join(f"{HOST}:{node.ports[listener]}" for node in self.nodes)

    def start(self) -> None:
        """Start every node that does not run; returns once each lists all of them.

        Raises LocalServerError, with the tail of the log, when that does not come in time.
        """
        fresh = not all(node.formatted for node in self.nodes)
        # Ports that the world knows already must not change.
        attempts = PORT_ATTEMPTS if fresh and self._given_port is None else 1
        for attempt in range(1, attempts + 1):
            failed = self._start_once(fresh=fresh)
            if failed is None:
                return
            words = failed.last_words()
            if attempt == attempts or "Address already in use" not in words:
                message = f"Kafka node {failed.number} did not start, see {failed.folder}\n{words}"
                raise LocalServerError(message)
            # Somebody else took a port between our look and the broker's bind.
            self.kill()
            for node in self.nodes:
                node.forget()

    def stop(self, node: int | None = None) -> None:
        """Stop a node (1 is the first), or all, in good order, at last by SIGKILL."""
        nodes = self._chosen(node)
        for chosen in nodes:
            self._keeper.signal(chosen.name, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for chosen in nodes:
            self._keeper.wait(chosen.name, max(0.0, deadline - time.monotonic()))
        self.kill(node)

    def kill(self, node: int | None = None) -> None:
        """SIGKILL a node, or all; returns when they are gone."""
        self.signal(signal.SIGKILL, node)
        for chosen in self._chosen(node):
            self._keeper.wait(chosen.name, STOP_TIMEOUT_S)
            if self._keeper.running(chosen.name):
                message = f"Kafka node {chosen.number} did not end\n{tail(chosen.log)}"
                raise LocalServerError(message)

    def signal(self, number: signal.Signals, node: int | None = None) -> None:
        """Send a signal to a node, or to all: SIGSTOP and SIGCONT make a broker that hangs."""
        for chosen in self._chosen(node):
            self._keeper.signal(chosen.name, number)

    def restart(self) -> None:
        """Stop and start on the same ports and data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop everything, and remove the data if it is temporary. Idempotent."""
        if self.temporary:
            # Nobody will read this data again: spare the time of an orderly stop.
            self.signal(signal.SIGKILL)
        self._keeper.close()

    def tool(self, class_name: str, *arguments: str, timeout_s: float = 60.0) -> str:
        """Run one of Kafka's own command line tools and give its standard output.

        `class_name` as in ``org.apache.kafka.tools.TopicCommand``; it gets
        ``--bootstrap-server`` by itself. Raises subprocess.CalledProcessError or TimeoutExpired.
        """
        command = [*java_command(self.folder, "-Xmx256m", *SHORT_LIVED), class_name]
        done = subprocess.run(
            [*command, "--bootstrap-server", self.bootstrap, *arguments],
            env=CLEAN_ENVIRONMENT,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
            check=True,
            text=True,
        )
        return done.stdout

    def __enter__(self) -> Self:
        """Start."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def _start_once(self, *, fresh: bool) -> Node | None:
        """The node that failed, or null when all are up."""
        self._choose_ports()
        if fresh:
            self._format()
        for node in self.nodes:
            self._launch(node)
        return self._wait_until_ready()

    def _chosen(self, node: int | None) -> list[Node]:
        return self.nodes if node is None else [self.nodes[node - 1]]

    def _choose_ports(self) -> None:
        """Ports of an earlier start are kept, also across processes: clients hold on to them."""
        names = ("PLAINTEXT", "CONTROLLER", *self.extra_listeners)
        for node in self.nodes:
            node.recall_ports()
            for name in names:
                node.ports.setdefault(name, free_port(HOST))
        if self._given_port:
            self.nodes[0].ports["PLAINTEXT"] = self._given_port

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        for node in self.nodes:
            node.prepare()
            self._write_properties(node)
            self._keeper.run(
                f"format-{node.number}",
                [
                    *(*java_command(node.folder, *SHORT_LIVED), "kafka.tools.StorageTool"),
                    # One word: an id may begin with a hyphen.
                    *("format", f"--cluster-id={cluster}", "-c", node.properties),
                ],
                log=node.log,
                timeout_s=FORMAT_TIMEOUT_S,
            )

    def _write_properties(self, node: Node) -> None:
        text = properties_text(node, self.nodes, self.extra_listeners, self.extra_properties)
        node.properties.write_text(text, encoding="utf-8")
        node.remember_ports()

    def _launch(self, node: Node) -> None:
        if self._keeper.running(node.name):
            return
        if self._given_port and node is self.nodes[0]:
            # A broker of somebody else's on it would be taken for this one.
            require_free(self._given_port, HOST)
        self._write_properties(node)
        self._keeper.start(
            node.name,
            [*java_command(node.folder, *self.java_options), "kafka.Kafka", node.properties],
            log=node.log,
            grace_s=0.0 if self.temporary else 15.0,
        )

    def _wait_until_ready(self) -> Node | None:
        """The node that failed, or null."""
        deadline = time.monotonic() + self.start_timeout_s
        for node in self.nodes:
            port = node.ports["PLAINTEXT"]
            while brokers_known_to(HOST, port) < len(self.nodes):
                ended = self._keeper.wait(node.name, POLL_S) is not None
                if ended or time.monotonic() > deadline:
                    return node
        return None
