"""Processes that own servers, for tests that end them hard; and what is left of a process tree."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

ROOT = Path(__file__).parent.parent
DEADLINE_S = 30.0


def wait_until(true: Callable[[], bool], timeout_s: float = DEADLINE_S) -> None:
    """Until it is true; fails after the timeout."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@dataclass(frozen=True)
class Running:
    """A process that runs now."""

    pid: int
    command: str

    def kill(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)


def pids_with(*marks: Path) -> list[Running]:
    """The processes, this one excepted, whose command line holds all the marks."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or [])
        alive = process.info["status"] != psutil.STATUS_ZOMBIE
        if alive and process.pid != os.getpid() and all(str(mark) in command for mark in marks):
            found.append(Running(process.pid, command))
    return found


class Owner:
    """A Python process with the given code, which says on its output when it is ready."""

    def __init__(
        self,
        code: str,
        *arguments: object,
        python: Path | str = sys.executable,
        environment: Mapping[str, str] | None = None,
        user: int | None = None,
    ) -> None:
        """Start it in its own session, so that its end is its own."""
        self.process = subprocess.Popen(
            [python, "-c", code, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT if user is None else "/",
            env=environment,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            start_new_session=True,
        )
        self.said = ""

    def wait_for(self, word: str) -> str:
        """Read lines until one begins with the word; gives the rest of that line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if line.startswith(word):
                return line[len(word) :].strip()
        message = f"the process ended without saying {word!r}:\n{self.said}"
        raise AssertionError(message)

    def end(self, number: signal.Signals) -> None:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        self.process.wait(timeout=DEADLINE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(timeout=DEADLINE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
