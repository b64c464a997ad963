"""The leash: a tiny process that holds servers and ends them when their owner is gone.

Runs as its own script on the standard library alone (``python -I -S leash.py``). Commands arrive
as JSON lines on standard input, events leave as JSON lines on standard output; keeper.py is the
other end and documents both. The end of standard input, another parent process or SIGTERM mean
that the owner is gone: every server is stopped, the temporary folder is removed, the leash ends.

Servers are children of this process and not of the owner because the kernel's death signal
follows the thread that started a process: here there is only one thread, and it lives as long
as the servers. A killed leash takes its servers along in the same way (Linux).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PARENT_CHECK_S = 1.0
LOG_LIMIT_BYTES = 8 * 1024 * 1024
READ_BYTES = 65536
KILL_WAIT_S = 10.0
LOCK_WAIT_S = 30.0  # longer than a former leash needs to stop its servers
ON_LINUX = sys.platform.startswith("linux")
LIBC = ctypes.CDLL(None, use_errno=True) if ON_LINUX else None


def prctl(option: int, value: int) -> None:
    """Linux only; elsewhere the leash alone has to do."""
    if LIBC is not None:
        LIBC.prctl(option, value, 0, 0, 0)


def die_with_the_leash() -> None:
    """Runs in the child between fork and exec, after the change of user (which would clear it)."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class BoundedLog:
    """Appends to a file and keeps one older file beside it, so that a log never fills the disk."""

    def __init__(self, path: Path) -> None:
        """Open for appending; the folder must exist."""
        self.path = path
        self.file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        """Write, turning the file over at the limit."""
        if self.file.tell() > LOG_LIMIT_BYTES:
            self.file.close()
            self.path.replace(self.path.with_name(self.path.name + ".1"))
            self.file = self.path.open("ab", buffering=0)
        self.file.write(data)


@dataclass
class Server:
    """One held process."""

    name: str
    process: subprocess.Popen[bytes]
    log: BoundedLog
    stop_signal: int
    grace_s: float
    exit_code: int | None = None


class Leash:
    """Holds servers by name; one loop serves commands, output, exits and the owner's end."""

    def __init__(self, remove: Path | None) -> None:
        """`remove` is the temporary folder that goes when the owner goes."""
        self.remove = remove
        self.servers: dict[str, Server] = {}
        self.outputs: dict[int, Server] = {}
        self.owner = os.getppid()
        self.ending = False
        self.commands = b""
        self.wake_read, wake_write = os.pipe()
        os.set_blocking(self.wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._end)
        for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)
        prctl(PR_SET_CHILD_SUBREAPER, 1)

    def _end(self, *_: object) -> None:
        self.ending = True

    def serve(self) -> None:
        """Until the owner is gone; then end everything."""
        while not self.ending and os.getppid() == self.owner:
            self.step(PARENT_CHECK_S, with_commands=True)
        self.end_all()

    def step(self, timeout_s: float, *, with_commands: bool) -> None:
        """Wait for something to do, at most `timeout_s`, and do it."""
        sources = [self.wake_read, *self.outputs]
        if with_commands:
            sources.append(sys.stdin.fileno())
        for source in select.select(sources, [], [], timeout_s)[0]:
            if source == self.wake_read:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.wake_read, READ_BYTES)
            elif source in self.outputs:
                self.copy_output(source)
            else:
                self.read_commands()
        self.reap()

    def copy_output(self, source: int) -> None:
        """Move what a server wrote into its log."""
        data = os.read(source, READ_BYTES)
        server = self.outputs[source]
        if data:
            # A full disk must not end the servers: the lines are lost, the process goes on.
            with contextlib.suppress(OSError):
                server.log.write(data)
        else:
            del self.outputs[source]
            os.close(source)

    def read_commands(self) -> None:
        """Serve complete lines; the end of the stream is the owner's end."""
        data = os.read(sys.stdin.fileno(), READ_BYTES)
        if not data:
            self.ending = True
        *lines, self.commands = (self.commands + data).split(b"\n")
        for line in lines:
            command = json.loads(line)
            if command["op"] == "start":
                self.start(command)
            else:
                self.send(command["name"], command["signal"])

    def start(self, command: dict[str, object]) -> None:
        """Start one server; a failure to do so is an event, not the end of the leash."""
        name = str(command["name"])
        account = command.get("account")
        identity = (
            {"user": account[0], "group": account[1], "extra_groups": []}
            if isinstance(account, list)
            else {}
        )
        try:
            log = BoundedLog(Path(str(command["log"])))
            process = subprocess.Popen(  # type: ignore[call-overload]
                command["argv"],
                cwd=command["cwd"],
                env=command["env"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Safe here: this process has a single thread.
                preexec_fn=die_with_the_leash,
                **identity,
            )
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            tell(event="failed", name=name, error=f"{type(error).__name__}: {error}")
            return
        server = Server(
            name, process, log, int(str(command["stop_signal"])), float(str(command["grace_s"]))
        )
        self.servers[name] = server
        output = os.dup(process.stdout.fileno())
        process.stdout.close()
        self.outputs[output] = server
        tell(event="started", name=name, pid=process.pid)

    def send(self, name: str, number: int) -> None:
        """Send a signal to a server's whole process group; gone is fine."""
        server = self.servers.get(name)
        if server is not None and server.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.process.pid, number)

    def reap(self) -> None:
        """Collect ended children; report a server once nothing that it started is left."""
        mains = {server.process.pid: server for server in self.servers.values()}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid in mains:
                server = mains[pid]
                server.exit_code = os.waitstatus_to_exitcode(status)
                server.process.returncode = server.exit_code
        ended = [server for server in self.servers.values() if server.exit_code is not None]
        if not ended or self.kill_orphans():
            return
        for server in ended:
            self.drain(server)
            del self.servers[server.name]
            tell(event="exited", name=server.name, code=server.exit_code)

    def drain(self, server: Server) -> None:
        """Copy the last words of an ended server, so that an error can quote them."""
        for source in [fd for fd, owner in self.outputs.items() if owner is server]:
            while source in self.outputs and select.select([source], [], [], 0)[0]:
                self.copy_output(source)

    def kill_orphans(self) -> bool:
        """Kill what ended servers left behind (adopted by this process); true while some remain."""
        try:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
        except OSError:
            return False
        running = {s.process.pid for s in self.servers.values() if s.exit_code is None}
        orphans = [int(pid) for pid in children.split() if int(pid) not in running]
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(orphans)

    def end_all(self) -> None:
        """Stop everything, first politely, and remove the temporary folder."""
        for server in self.servers.values():
            self.send(server.name, server.stop_signal)
        grace_s = max((server.grace_s for server in self.servers.values()), default=0.0)
        self.wait_for_all(grace_s)
        for server in self.servers.values():
            self.send(server.name, signal.SIGKILL)
        self.wait_for_all(KILL_WAIT_S)
        if self.remove is not None:
            shutil.rmtree(self.remove, ignore_errors=True)

    def wait_for_all(self, timeout_s: float) -> None:
        """Until no server is left, at most `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self.servers and time.monotonic() < deadline:
            self.step(0.05, with_commands=False)


def tell(**event: object) -> None:
    """Send one event; an owner that is gone is noticed elsewhere."""
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), json.dumps(event).encode() + b"\n")


def hold(folder: Path) -> IO[bytes]:
    """Lock the folder, so that no two owners use it, waiting for a former one's servers to end."""
    lock = (folder / "in-use").open("ab")
    deadline = time.monotonic() + LOCK_WAIT_S
    while time.monotonic() < deadline:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # No command comes before we hold the folder: something to read means the owner's end.
            if select.select([sys.stdin], [], [], 0.05)[0]:
                break
        else:
            return lock
    tell(event="busy")
    sys.exit(1)


def main() -> None:
    """``leash.py [keep|remove FOLDER]``: hold servers whose data is in FOLDER."""
    fate, folder = sys.argv[1:] or ["keep", ""]
    lock = hold(Path(folder)) if folder else None
    tell(event="holding")
    Leash(Path(folder) if fate == "remove" else None).serve()
    if lock is not None:
        lock.close()


if __name__ == "__main__":
    main()
