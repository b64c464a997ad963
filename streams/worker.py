"""The process around the app: `faust -A streams.app worker` and `engagement worker` alike.

Faust's own worker would print a spinner and lines of its own form; this one logs as everything else
here does, and says nothing that is not a log line.
"""

from __future__ import annotations

import logging
from typing import Any, Final, NoReturn, cast

import faust
from faust.cli.base import DEFAULT_LOGLEVEL

from service import logs
from service.settings import Settings

LIFE_CYCLE: Final = "[^"


class EngagementWorker(faust.Worker):
    """Runs one app until SIGTERM or SIGINT, then ends with exit code 0; 1 after a crash."""

    def __init__(self, app: Any, *services: Any, **arguments: Any) -> None:
        super().__init__(app, *services, **arguments)
        self.spinner = None

    def _setup_logging(self) -> None:
        settings: Settings = cast("Any", self.app).settings
        # Faust's command line always gives a level; only one that somebody chose wins over ours.
        chosen = None if self.loglevel == DEFAULT_LOGLEVEL else self.loglevel
        level = str(chosen).upper() if chosen else settings.log_level
        # Never more of the libraries: at DEBUG the Kafka client prints whole records.
        logs.configure(settings, level=level, libraries="INFO" if level == "DEBUG" else None)
        for handler in logging.root.handlers:
            handler.addFilter(_is_worth_a_line)

    def _on_sigint(self) -> None:
        # Not Faust's banner: Ctrl-C is an orderly end like SIGTERM.
        self._on_sigterm()

    def say(self, msg: str) -> None:
        """Nothing: what there is to say is logged."""


def run(app: Any) -> NoReturn:
    """Run the app as `faust -A streams.app worker` does; ends by SystemExit."""
    EngagementWorker(app).execute_from_commandline()


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Not the starting and stopping of each of Faust's forty services, unless debugging."""
    if record.levelno != logging.INFO or logging.root.isEnabledFor(logging.DEBUG):
        return True
    return not str(record.msg).startswith(LIFE_CYCLE)
