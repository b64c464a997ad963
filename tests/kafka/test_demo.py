"""The demo, small: right in the end, and nothing left behind whatever ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.command import COMMAND, process_environment

pytestmark = pytest.mark.timeout(400)

SMALL = ("--members", "150", "--days", "120")
TIMEOUT_S = 300.0
GONE_S = 40.0


class Demo:
    """A demo as a process, and everything below it."""

    def __init__(self, output: Path, *arguments: str) -> None:
        self.output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [*COMMAND, "demo", *SMALL, *arguments],
                env=process_environment({}),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=output.parent,
            )
        self.seen: dict[int, psutil.Process] = {}
        self.folders: list[Path] = []

    @property
    def said(self) -> str:
        return self.output.read_text()

    def look(self) -> None:
        """Remember every process below; leashes are in sessions of their own, but children."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in psutil.Process(self.process.pid).children(recursive=True):
                self.seen[one.pid] = one

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while text not in self.said:
            self.look()
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.1)
        self.look()

    def child(self, *words: str) -> psutil.Process:
        """The one process below whose command line ends with these words."""
        self.look()
        (found,) = (
            one
            for one in self.seen.values()
            if one.is_running() and one.cmdline()[-len(words) :] == list(words)
        )
        return found

    def note_folders(self) -> None:
        """Remember the folders that its leashes are to remove."""
        self.look()
        lines = [one.cmdline() for one in self.seen.values() if one.is_running()]
        self.folders = [Path(line[-1]) for line in lines if "leash.py" in " ".join(line)]
        assert len(self.folders) == 3

    def assert_nothing_left(self) -> None:
        _, alive = psutil.wait_procs(list(self.seen.values()), timeout=GONE_S)
        assert not alive
        assert len(self.seen) >= 5
        assert not [folder for folder in self.folders if folder.exists()]


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[Demo]:
    found = Demo(folder / "output.txt", *arguments)
    try:
        yield found
    finally:
        if found.process.poll() is None:
            found.process.terminate()
        found.process.wait(GONE_S)


def test_check(tmp_path: Path) -> None:
    with demo(tmp_path, "--check") as run:
        run.wait_for("live: 200 records")
        run.note_folders()
        while run.process.poll() is None:
            run.look()
            time.sleep(0.2)
        assert run.process.returncode == 0, run.said
        lines = [line.split("] ", 1)[1] for line in run.said.splitlines()]
        assert lines[-1] == "all as it should be"
        compared = [line for line in lines if line.endswith(" differ")]
        assert len(compared) == 4
        assert all(line.endswith(": 0 differ") for line in compared)
        assert "published levels" in compared[0]
        assert "/sign-in?code=" in run.said
        run.assert_nothing_left()
        assert list(tmp_path.iterdir()) == [run.output]


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        signal.SIGKILL,
        # Takes the way of SIGINT.
        pytest.param(signal.SIGTERM, marks=pytest.mark.nightly),
        pytest.param(signal.SIGHUP, marks=pytest.mark.nightly),
    ],
)
def test_whatever_ends_it_nothing_is_left(tmp_path: Path, number: signal.Signals) -> None:
    with demo(tmp_path) as run:
        run.wait_for("working it off")
        run.note_folders()
        run.process.send_signal(number)
        expected = -number if number is signal.SIGKILL else 0
        assert run.process.wait(GONE_S) == expected, run.said
        run.assert_nothing_left()


def test_a_worker_that_dies_is_said_with_its_last_words(tmp_path: Path) -> None:
    with demo(tmp_path) as run:
        run.wait_for("working it off")
        run.note_folders()
        (log,) = (folder / "worker.log" for folder in run.folders if folder.name.startswith("demo"))
        while "worker_started" not in log.read_text():
            assert run.process.poll() is None, run.said
            time.sleep(0.1)
        os.kill(run.child("service.cli.main", "worker").pid, signal.SIGKILL)
        assert run.process.wait(GONE_S) == 1
        assert "the worker has ended" in run.said
        assert "worker_started" in run.said
        assert "Traceback" not in run.said
        run.assert_nothing_left()


async def test_somebody_elses_members_are_left_alone(
    tmp_path: Path, database: str, kafka_broker: object
) -> None:
    import asyncio

    import asyncpg

    from tests.command import engagement
    from tests.servers import KafkaBroker

    broker: KafkaBroker = kafka_broker  # type: ignore[assignment]
    connection = await asyncpg.connect(database)
    await connection.execute("INSERT INTO member (org_id, user_id) VALUES ('real', 'person')")
    settings = {"DATABASE_URL": database, "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap}
    found = await asyncio.to_thread(engagement, "demo", "--check", settings=settings)
    assert found.returncode == 1
    assert "holds members already" in found.stderr
    assert await connection.fetchval("SELECT count(*) FROM member") == 1
    assert await connection.fetchval("SELECT count(*) FROM stream_offset") == 0
    await connection.close()
