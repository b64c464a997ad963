"""Runs what the pages tell people to type, against servers of the tests."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from service.demo.local import LocalKafka
from tests.fences import ROOT, Block

# Where the pages say that Kafka is.
DOCUMENTED_BROKER = "127.0.0.1:9092"
TOOLS = {
    "kafka-acls.sh": "org.apache.kafka.tools.AclCommand",
    "kafka-configs.sh": "kafka.admin.ConfigCommand",
    "kafka-console-consumer.sh": "org.apache.kafka.tools.consumer.ConsoleConsumer",
}
TIMEOUT_S = 90


class Shell:
    """A bash in the project's folder, with Kafka's own tools and kcat on its path."""

    def __init__(self, kafka: LocalKafka, folder: Path, environment: Mapping[str, str]) -> None:
        """`environment` is added to a clean one; `folder` gets the programs."""
        self._kafka = kafka
        folder.mkdir(exist_ok=True)
        for name, class_name in TOOLS.items():
            java = shlex.join([*kafka._java(kafka.folder, "-Xmx256m"), class_name])
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

    def run(self, script: str, **environment: str) -> str:
        """Run a script to its end and give what it printed. Raises AssertionError with all of it.

        The documented broker is replaced by ours.
        """
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace(DOCUMENTED_BROKER, self.bootstrap)],
            cwd=ROOT,
            env={**self._environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def run_block(self, block: Block, **environment: str) -> str:
        """Run a block of a page: shell, or a Python program."""
        if block.language == "python":
            return self.run(f"python3 -c {shlex.quote(block.text)}", **environment)
        assert block.language == "sh", f"{block} is no script"
        return self.run(block.text, **environment)

    @property
    def bootstrap(self) -> str:
        """Where the broker is."""
        return self._kafka.bootstrap


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
