"""One Kafka node: its files, ports and properties."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.demo.local.keeper import tail

HOST = "127.0.0.1"


@dataclass
class Node:
    """A node's place on disk and its ports by listener name."""

    number: int
    folder: Path
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name it is kept under."""
        return f"kafka-{self.number}"

    @property
    def properties(self) -> Path:
        """The broker's configuration."""
        return self.folder / "server.properties"

    @property
    def data(self) -> Path:
        """The folder of its topics."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What the Java process itself prints."""
        return self.folder / "console.log"

    @property
    def formatted(self) -> bool:
        """Whether its data folder was made ready once."""
        return (self.data / "meta.properties").exists()

    def last_words(self) -> str:
        """The ends of its two logs, for an error message."""
        return f"{tail(self.log)}\n{tail(self.folder / 'broker.log')}".strip()

    def prepare(self) -> None:
        """Make its folder anew."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def forget(self) -> None:
        """Lose data and ports, for a new try."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.ports.clear()

    def recall_ports(self) -> None:
        """Take the ports of an earlier cluster on this folder, if any."""
        if not self.ports and self.formatted:
            self.ports.update(json.loads(self._ports_file.read_text(encoding="ascii")))

    def remember_ports(self) -> None:
        """Keep the ports for a later cluster on this folder."""
        self._ports_file.write_text(json.dumps(self.ports), encoding="ascii")

    @property
    def _ports_file(self) -> Path:
        return self.folder / "ports.json"


def properties_text(
    node: Node,
    nodes: Sequence[Node],
    extra_listeners: Mapping[str, str],
    extra_properties: Mapping[str, str],
) -> str:
    """The node's server.properties: a small cluster that loses nothing when one of three dies."""
    copies = str(min(3, len(nodes)))
    in_sync = str(min(2, len(nodes)))
    clients = {"PLAINTEXT": "PLAINTEXT", **extra_listeners}
    protocols = {**clients, "CONTROLLER": "PLAINTEXT"}
    properties = {
        "process.roles": "broker,controller",
        "node.id": str(node.number),
        "controller.quorum.voters": ",".join(
            f"{other.number}@{HOST}:{other.ports['CONTROLLER']}" for other in nodes
        ),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listeners": ",".join(f"{name}://{HOST}:{node.ports[name]}" for name in protocols),
        "advertised.listeners": ",".join(f"{name}://{HOST}:{node.ports[name]}" for name in clients),
        "listener.security.protocol.map": ",".join(f"{k}:{v}" for k, v in protocols.items()),
        "log.dirs": str(node.data),
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        # A killed node may come back only when its old session has ended (9 s by default).
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync,
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync,
        **extra_properties,
    }
    return "".join(f"{name}={value}\n" for name, value in properties.items())
