"""A worker as a process of its own, with its log lines."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from service.demo.local.ports import free_port
from tests.command import COMMAND, process_environment

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
POLL_S = 0.05

ENGAGEMENT = (*COMMAND, "worker")
FAUST = (sys.executable, "-P", "-m", "faust", "-A", "streams.app", "worker", "-l", "info")


class WorkerProcess:
    """Runs until the end of the block; `log` holds what it has logged so far."""

    def __init__(self, settings: Mapping[str, str], command: Sequence[str] = ENGAGEMENT) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.port = free_port()
        self._output = Path(self.folder.name, "output.txt")
        self.cwd = Path(self.folder.name, "cwd")
        self.cwd.mkdir()
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env=process_environment({"ENGAGEMENT_WORKER_OPS_PORT": str(self.port), **settings}),
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )

    @property
    def stderr(self) -> str:
        """All that it has said on standard error."""
        return self._output.read_text()

    @property
    def log(self) -> list[dict[str, Any]]:
        """Its log lines; every line has to be one."""
        return [json.loads(line) for line in self.stderr.splitlines()]

    def wait_for(self, event: str, timeout_s: float = START_TIMEOUT_S) -> dict[str, Any]:
        """The first log line of this event."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            # The last line may still be on its way.
            for line in self.stderr.splitlines(keepends=True):
                if line.endswith("\n") and f'"{event}"' in line:
                    found: dict[str, Any] = json.loads(line)
                    if found["event"] == event:
                        return found
            assert self.process.poll() is None, self.stderr
            time.sleep(POLL_S)
        message = f"no {event} in {timeout_s} s:\n{self.stderr}"
        raise AssertionError(message)

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal; (exit code, seconds until the end)."""
        began = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(STOP_TIMEOUT_S)
        return code, time.monotonic() - began

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(STOP_TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.folder.cleanup()
