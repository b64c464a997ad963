"""`./run servers`: two lines for the other terminals, and nothing left when it ends."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient

from service.demo.local.ports import is_free
from tests.command import ROOT, done, settings_for
from tests.servers import KafkaBroker

pytestmark = pytest.mark.timeout(240)

GONE_S = 40.0
USUAL = (9092, 5432)


class Servers:
    """The command as a process, and everything below it."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "run", "servers", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def exported(self) -> dict[str, str]:
        """What the two lines export."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        lines = [self.process.stdout.readline() for _ in range(2)]
        assert all(line.startswith("export ") for line in lines), self.process.stderr.read()
        pairs = (line.removeprefix("export ").rstrip("\n").partition("=") for line in lines)
        return {name: value for name, _, value in pairs}

    def below(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def servers(*arguments: str) -> Iterator[Servers]:
    found = Servers(*arguments)
    try:
        yield found
    finally:
        found.process.terminate()
        found.process.communicate(timeout=GONE_S)


@contextmanager
def usual_ports_taken() -> Iterator[None]:
    """By us, unless somebody has them already."""
    with ExitStack() as stack:
        for port in USUAL:
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                listener.bind(("127.0.0.1", port))
                listener.listen()
        yield


def test_they_work_beside_others_and_leave_nothing() -> None:
    with usual_ports_taken(), servers() as run:
        given = run.exported()
        assert list(given) == ["KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL"]
        settings = settings_for() | given
        done("topics", "apply", settings=settings)
        done("migrate", settings=settings)
        port = int(given["KAFKA_BOOTSTRAP_SERVERS"].rpartition(":")[2])
        assert port not in USUAL
        below = run.below()
        lines = [one.cmdline() for one in below]
        assert sum("kafka.Kafka" in line for line in lines) == 1
        folders = [Path(line[-1]) for line in lines if "leash.py" in " ".join(line)]
        assert len(folders) == 2
        run.process.terminate()
        said = run.process.communicate(timeout=GONE_S)
        assert run.process.returncode == 0, said
        assert said[0] == ""
        assert "port 9092 is taken" in said[1]
        assert "Traceback" not in said[1]
        _, alive = psutil.wait_procs(below, timeout=GONE_S)
        assert not alive
        assert not [folder for folder in folders if folder.exists()]
        assert is_free(port)


@pytest.mark.parametrize("option", ["--kafka-port", "--postgres-port"])
def test_a_port_that_somebody_has_is_refused(kafka_broker: KafkaBroker, option: str) -> None:
    """Above all one where another broker answers, which is easily taken for ours."""
    port = kafka_broker.bootstrap.split(",")[0].rpartition(":")[2]
    with servers(option, port) as run:
        said = run.process.communicate(timeout=GONE_S)
        assert run.process.returncode == 1, said
        assert said[0] == ""
        assert said[1].splitlines()[-1] == f"Error: port {port} of 127.0.0.1 is taken"
        assert "Traceback" not in said[1]
    # The other one is as it was.
    admin = AdminClient({"bootstrap.servers": kafka_broker.bootstrap})
    assert admin.list_topics(timeout=10).brokers
