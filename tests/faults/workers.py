"""Worker processes of a test: started with failpoints, watched over HTTP, ended in every way."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from service.demo.local.keeper import Keeper, tail
from service.demo.local.ports import free_port
from tests.faults.clocks import Jumps
from tests.faults.failpoints import Failpoint
from tests.owners import ROOT

POLL_S = 0.05
START_TIMEOUT_S = 60.0


class Worker:
    """One process; `name` is unique within a test and part of its connections' names."""

    def __init__(
        self,
        keeper: Keeper,
        folder: Path,
        name: str,
        environment: Mapping[str, str],
        failpoints: Sequence[Failpoint] = (),
        mutations: Sequence[str] = (),
        constants: Mapping[str, float] | None = None,
        clock: Jumps = (),
    ) -> None:
        """Start it. `constants`: module:NAME of the product -> another number.

        `clock`: how its wall clock is wrong.
        """
        self.name = name
        self.log = folder / f"{name}.log"
        self.folder = folder / name
        self.folder.mkdir()
        self.port = free_port()
        self._keeper = keeper
        plan = {
            "folder": str(self.folder),
            "name": name,
            "failpoints": [asdict(one) for one in failpoints],
            "mutations": list(mutations),
            "constants": dict(constants or {}),
            "clock": list(clock),
        }
        plan_file = self.folder / "plan.json"
        plan_file.write_text(json.dumps(plan), encoding="utf-8")
        self.pid = keeper.start(
            str(self.folder),
            [sys.executable, "-m", "tests.faults.worker_main", plan_file],
            log=self.log,
            cwd=ROOT,
            environment={**environment, "ENGAGEMENT_WORKER_OPS_PORT": str(self.port)},
        )

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._keeper.running(str(self.folder))

    @property
    def state(self) -> str:
        """Whether it runs or how it ended, for messages."""
        return "running" if self.running else f"ended with exit code {self.exit_code(1)}"

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._keeper.signal(str(self.folder), number)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.send(signal.SIGKILL)
        assert self.exit_code(10) == -signal.SIGKILL

    def exit_code(self, timeout_s: float) -> int:
        """Wait for its end; fails, with the end of its log, when that does not come in time."""
        code = self._keeper.wait(str(self.folder), timeout_s)
        assert code is not None, f"{self.name} did not end in {timeout_s} s\n{tail(self.log)}"
        return code

    def stop(self, timeout_s: float = 15.0) -> float:
        """SIGTERM; it has to end with exit code 0 in time. How long it took, in seconds."""
        began = time.monotonic()
        self.send(signal.SIGTERM)
        code = self.exit_code(timeout_s)
        assert code == 0, f"{self.name} ended with exit code {code}\n{tail(self.log)}"
        return time.monotonic() - began

    def arrived(self, place: str, number: int = 1) -> bool:
        """Whether it has arrived at a failpoint's place that many times."""
        return (self.folder / f"{place}.{number}").exists()

    async def until_arrived(self, place: str, number: int = 1, timeout_s: float = 60.0) -> None:
        """Wait for that."""
        await self._until(
            lambda: self.arrived(place, number), timeout_s, f"arrive at {place} {number} times"
        )

    def let_go(self, place: str) -> None:
        """End a `hold`."""
        (self.folder / f"{place}.go").touch()

    async def until_ended(self, timeout_s: float = 60.0) -> int:
        """Wait for its end by itself; its exit code."""
        await self._until(lambda: not self.running, timeout_s, "end")
        return self.exit_code(5)

    async def until_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until `/readyz` says so."""
        deadline = time.monotonic() + timeout_s
        while (await self.get("/readyz"))[0] != 200:
            assert self.running, f"{self.name} has ended\n{tail(self.log)}"
            assert time.monotonic() < deadline, f"{self.name} is not ready\n{tail(self.log)}"
            await asyncio.sleep(POLL_S)

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of one of its pages; status 0 when nobody answers."""
        return await asyncio.to_thread(self._get, path)

    def _get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()
        except (OSError, TimeoutError):
            return 0, ""

    def said(self, text: str) -> int:
        """How often a text is in its log."""
        return self.log.read_text(encoding="utf-8", errors="replace").count(text)

    async def until_said(self, text: str, times: int = 1, timeout_s: float = 30.0) -> None:
        """Wait until a text is in its log that often."""
        await self._until(lambda: self.said(text) >= times, timeout_s, f"say {text!r}")

    async def _until(self, true: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < deadline, (
                f"{self.name} did not {what} in {timeout_s} s\n{tail(self.log)}"
            )
            await asyncio.sleep(POLL_S)
