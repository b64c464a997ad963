"""Runs what the pages tell people to type, against servers of the tests."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from service.demo.local.java import SHORT_LIVED, java_command
from tests.fences import ROOT, Block

# Where the pages say that Kafka is, and where they keep files of their own.
DOCUMENTED_BROKER = "127.0.0.1:9092"
DOCUMENTED_FOLDER = "/tmp/"
TOOLS = {
    "kafka-acls.sh": "org.apache.kafka.tools.AclCommand",
    "kafka-console-consumer.sh": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-console-producer.sh": "org.apache.kafka.tools.ConsoleProducer",
}
JAVA_OPTIONS = ("-Xmx256m", *SHORT_LIVED)
TIMEOUT_S = 90.0
POLL_S = 0.1


class Shell:
    """A bash in the project's folder, with Kafka's own tools and kcat on its path."""

    def __init__(self, bootstrap: str, folder: Path, environment: Mapping[str, str]) -> None:
        """`environment` is added to a clean one; `folder` gets the programs and files."""
        self._bootstrap = bootstrap
        self._folder = folder
        self.ran: set[Block] = set()
        folder.mkdir(exist_ok=True)
        for name, class_name in TOOLS.items():
            java = shlex.join([*java_command(folder, *JAVA_OPTIONS), class_name])
            _script(folder / name, f'exec {java} "$@"')
        if shutil.which("kcat") is None:
            # The same library under another front.
            stand_in = Path(__file__).with_name("kcat.py")
            _script(folder / "kcat", f'exec {shlex.quote(sys.executable)} {stand_in} "$@"')
        _script(folder / "python3", f'exec {shlex.quote(sys.executable)} "$@"')
        self._environment = {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            **environment,
        }

    def run(self, script: str) -> str:
        """Run a script to its end and give what it printed. Raises AssertionError with all of it.

        The documented broker and folder are replaced by ours.
        """
        with self.start(script) as terminal:
            code = terminal.wait()
            assert code == 0, f"{script}\nends with {code}\n{terminal.printed}\n{terminal.said}"
            return terminal.printed

    def run_block(self, block: Block) -> str:
        """Run a block of a page: shell, or a Python program."""
        return self.run(self._script_of(block))

    def start(self, script: str) -> Terminal:
        """Begin a script that has a terminal of its own."""
        for documented, ours in (
            (DOCUMENTED_BROKER, self._bootstrap),
            (DOCUMENTED_FOLDER, f"{self._folder}/"),
        ):
            script = script.replace(documented, ours)
        return Terminal(script, self._environment, self._folder)

    def start_block(self, block: Block) -> Terminal:
        """Begin a block of a page."""
        return self.start(self._script_of(block))

    def _script_of(self, block: Block) -> str:
        self.ran.add(block)
        if block.language == "python":
            return f"exec python3 -c {shlex.quote(block.text)}"
        assert block.language == "sh", f"{block} is no script"
        return block.text


class Terminal:
    """A script that runs; leaving the block kills what is left of it."""

    def __init__(self, script: str, environment: Mapping[str, str], folder: Path) -> None:
        """`folder` gets its output."""
        number = len(list(folder.glob("terminal-*.out")))
        self._out = folder / f"terminal-{number}.out"
        self._err = folder / f"terminal-{number}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def printed(self) -> str:
        """Its standard output up to now."""
        return self._out.read_text()

    @property
    def said(self) -> str:
        """Its standard error up to now."""
        return self._err.read_text()

    def wait_for(self, text: str, timeout_s: float = TIMEOUT_S) -> None:
        """Return when it has printed or said this."""
        deadline = time.monotonic() + timeout_s
        while True:
            # In this order: what it says last counts, too.
            has_ended = self._process.poll() is not None
            if text in self.printed + self.said:
                return
            everything = f"no {text!r} in\n{self.printed}\n{self.said}"
            assert not has_ended, everything
            assert time.monotonic() < deadline, everything
            time.sleep(POLL_S)

    def wait(self) -> int:
        """Its exit code, once it has ended by itself."""
        return self._process.wait(TIMEOUT_S)

    def ctrl_c(self) -> int:
        """What Ctrl-C does: the signal reaches all of its processes. The exit code."""
        os.killpg(self._process.pid, signal.SIGINT)
        return self.wait()

    def __enter__(self) -> Self:
        """It runs already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill what is left; servers below end with their parent by themselves."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(TIMEOUT_S)


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
