"""The service's own processes in the demo. They end when we end, whatever ends us."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from service.demo.local import Keeper, LocalServerError, folders
from service.demo.local.keeper import tail

ROOT: Final = Path(__file__).parents[2]
STOP_S: Final = 20.0
OUTPUT_S: Final = 60.0
FOREIGN: Final = ("KAFKA_", "ENGAGEMENT_", "DATABASE_URL", "PG")


class Children:
    """Commands of `engagement` as child processes, with their logs in a folder of the demo."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        """`settings`: environment names and values for all of them, instead of the inherited."""
        self.folder = folders.temporary_folder("demo")
        self.expected: set[str] = set()
        self._keeper = Keeper(self.folder, temporary=True)
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)
        }
        self._environment = {
            **inherited,
            **settings,
            "PYTHONPATH": str(ROOT),
            "ENGAGEMENT_LOG_FORMAT": "json",
        }

    def start(self, name: str, *arguments: str) -> None:
        """Start `engagement ARGUMENTS...`, expected to run until the end. LocalServerError."""
        self._start(name, *arguments)
        self.expected.add(name)

    def output(self, name: str, *arguments: str) -> str:
        """Run `engagement ARGUMENTS...` to its end; what it printed. Raises LocalServerError."""
        self._start(name, *arguments)
        code = self._keeper.wait(name, OUTPUT_S)
        if code != 0:
            message = f"the {name} ended with exit code {code}\n{tail(self.log(name))}"
            raise LocalServerError(message)
        return self.log(name).read_text(encoding="utf-8")

    def log(self, name: str) -> Path:
        """Where a child's log lines go."""
        return self.folder / f"{name}.log"

    def require_running(self, name: str) -> None:
        """Raise LocalServerError, with its last words, when a child has ended by itself."""
        if not self._keeper.running(name):
            message = f"the {name} has ended\n{tail(self.log(name))}"
            raise LocalServerError(message)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the children in good order, remove the folder."""
        self._keeper.close()

    def _start(self, name: str, *arguments: str) -> None:
        self._keeper.start(
            name,
            [sys.executable, "-P", "-m", "service.cli.main", *arguments],
            log=self.log(name),
            cwd=self.folder,
            environment=self._environment,
            grace_s=STOP_S,
        )
