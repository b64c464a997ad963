"""Starts server processes that can't outlive us, whatever ends us (owner side of leash.py).

Commands (one JSON object a line): ``start`` with name, argv, cwd, env, log, account [uid, gid] or
null, stop_signal, grace_s; ``signal`` with name and signal number. Events: ``holding`` or
``busy``, ``started`` (pid), ``failed`` (error), ``exited`` (code; negative for a signal).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

LEASH = Path(__file__).with_name("leash.py")
ANSWER_TIMEOUT_S = 20.0
HOLD_TIMEOUT_S = 45.0  # longer than the leash waits for a folder
TAIL_BYTES = 4000
CLEAN_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC"}


class LocalServerError(RuntimeError):
    """A local server did not do what it should; the text ends with the tail of its log."""


class Account(NamedTuple):
    """An operating system user that a server runs as."""

    uid: int
    gid: int


def tail(log: Path) -> str:
    """The last lines of a log, for an error message; empty when there is none."""
    if not log.exists():
        return ""
    return log.read_bytes()[-TAIL_BYTES:].decode("utf-8", "replace").strip()


class Keeper:
    """Holds any number of named processes; thread-safe; usable as a context manager.

    Closing it (or the end of this process, SIGKILL included) stops all of them with their stop
    signal, and after their grace with SIGKILL. `folder` is locked meanwhile against other keepers,
    also of other processes, and removed at the end if it is `temporary`. Blocking; from asyncio
    call it by `asyncio.to_thread`.
    """

    def __init__(self, folder: Path | None = None, *, temporary: bool = False) -> None:
        """Start the leash; raises LocalServerError when somebody else uses the folder."""
        self._changed = threading.Condition()
        self._pids: dict[str, int] = {}
        self._exits: dict[str, int] = {}
        self._failures: dict[str, str] = {}
        self._state = "starting"
        fate = [] if folder is None else ["remove" if temporary else "keep", str(folder)]
        self._leash = subprocess.Popen(
            [sys.executable, "-I", "-S", str(LEASH), *fate],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            # Its own session: Ctrl-C in a terminal reaches us alone, and we stop things in order.
            start_new_session=True,
        )
        assert self._leash.stdin is not None
        assert self._leash.stdout is not None
        self._commands: IO[bytes] = self._leash.stdin
        self._reader = threading.Thread(
            target=self._read, args=(self._leash.stdout,), name="leash-events", daemon=True
        )
        self._reader.start()
        with self._changed:
            self._changed.wait_for(lambda: self._state != "starting", HOLD_TIMEOUT_S)
        if self._state != "holding":
            self.close()
            busy = f"{folder} is in use by another process" if self._state == "busy" else ""
            raise LocalServerError(busy or "the process that holds local servers did not start")

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        account: Account | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        grace_s: float = 10.0,
    ) -> int:
        """Start a process and give its pid; its output goes to `log` (two files of 8 MiB at most).

        `environment` is all that it gets (default: a clean one). Raises LocalServerError when it
        can't be executed; that it stays up is for the caller to see.
        """
        command = {
            "op": "start",
            "name": name,
            "argv": [str(part) for part in argv],
            "log": str(log),
            "cwd": str(cwd or "/"),
            "env": dict(environment if environment is not None else CLEAN_ENVIRONMENT),
            "account": list(account) if account else None,
            "stop_signal": int(stop_signal),
            "grace_s": grace_s,
        }
        with self._changed:
            if name in self._pids and name not in self._exits:
                message = f"{name} is running already"
                raise LocalServerError(message)
            for record in (self._pids, self._exits, self._failures):
                record.pop(name, None)
            self._tell(command)
            self._wait_until(
                lambda: name in self._pids or name in self._failures,
                f"{name} to be executed",
                ANSWER_TIMEOUT_S,
            )
            if name in self._failures:
                message = f"{name} can't be executed: {self._failures[name]}"
                raise LocalServerError(message)
            return self._pids[name]

    def run(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        timeout_s: float,
        environment: Mapping[str, str] | None = None,
        account: Account | None = None,
    ) -> None:
        """Run a command to its end; raises LocalServerError with the log's tail if it fails."""
        self.start(name, argv, log=log, environment=environment, account=account)
        code = self.wait(name, timeout_s)
        if code is None:
            self.signal(name, signal.SIGKILL)
            message = f"{name} did not finish in {timeout_s:.0f} s\n{tail(log)}"
            raise LocalServerError(message)
        if code != 0:
            message = f"{name} failed with exit code {code}\n{tail(log)}"
            raise LocalServerError(message)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the process group of a server; no effect when it has ended."""
        with self._changed:
            if self.running(name):
                self._tell({"op": "signal", "name": name, "signal": int(number)})

    def wait(self, name: str, timeout_s: float) -> int | None:
        """The exit code once the server and what it started are gone; null after the timeout."""
        with self._changed:
            self._changed.wait_for(lambda: not self.running(name), timeout_s)
            return self._exits.get(name)

    def running(self, name: str) -> bool:
        """Whether the server was started and has not ended."""
        return name in self._pids and name not in self._exits and self._leash.poll() is None

    def close(self) -> None:
        """Stop everything and remove the temporary folder. Idempotent."""
        with self._changed:
            if not self._commands.closed:
                self._commands.close()
        try:
            self._leash.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._leash.kill()
            self._leash.wait(timeout=10)
        self._reader.join(timeout=10)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def _tell(self, command: Mapping[str, object]) -> None:
        try:
            self._commands.write(json.dumps(command).encode() + b"\n")
            self._commands.flush()
        except (OSError, ValueError) as error:
            message = "the process that holds the local servers is gone"
            raise LocalServerError(message) from error

    def _wait_until(self, true: Callable[[], bool], what: str, timeout_s: float) -> None:
        done = self._changed.wait_for(lambda: true() or self._leash.poll() is not None, timeout_s)
        if not done or not true():
            message = f"waited {timeout_s:.0f} s in vain for {what}"
            raise LocalServerError(message)

    def _read(self, events: IO[bytes]) -> None:
        with events:
            for line in events:
                event = json.loads(line)
                with self._changed:
                    self._take(event)
                    self._changed.notify_all()
        with self._changed:
            self._state = "gone" if self._state == "starting" else self._state
            for name in self._pids.keys() - self._exits.keys():
                self._exits[name] = -signal.SIGKILL
            self._changed.notify_all()

    def _take(self, event: Mapping[str, object]) -> None:
        name = str(event.get("name"))
        if event["event"] in {"holding", "busy"}:
            self._state = str(event["event"])
        elif event["event"] == "started":
            self._pids[name] = int(str(event["pid"]))
        elif event["event"] == "failed":
            self._failures[name] = str(event["error"])
        else:
            self._exits[name] = int(str(event["code"]))
