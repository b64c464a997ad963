"""`engagement`: the composition root. Commands are imported when they are used, not before.

Exit codes: 0 done, 1 failed, 2 wrong use or wrong settings, 130 interrupted. Errors made on purpose
are one line that says what to do; a traceback means a defect.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NamedTuple

import click

from service.errors import EngagementError, NotReady, Refused, Retryable, SettingsError

DONE: Final = 0
FAILED: Final = 1
WRONG_USE: Final = 2
INTERRUPTED: Final = 130

# Nothing can be written where the output goes: the device is full, the terminal is gone.
NO_OUTPUT: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


class Entry(NamedTuple):
    """Where a command is (module:attribute) and what its line in the help says."""

    target: str
    help: str


COMMANDS: Final = {
    "demo": Entry("service.cli.demo:demo", "Show the whole service at work on this machine."),
    "migrate": Entry("service.cli.migrate:migrate", "Bring the database to this release."),
    "topics": Entry("service.cli.topics:topics", "Create the topics that are missing."),
    "worker": Entry("service.cli.worker:worker", "Run a worker, until SIGTERM or Ctrl-C."),
    "api": Entry("service.cli.api:api", "Serve the HTTP API and the admin pages."),
    "recompute": Entry("service.cli.recompute:recompute", "Evaluate members now, or at a time."),
    "import": Entry("service.cli.importing:import_", "Send the rows of a CSV file as records."),
    "tail": Entry("service.cli.tail:tail", "Print what arrives on one of the topics."),
    "dlq": Entry("service.cli.dlq:dlq", "Dead letters: list, show, replay, resume."),
    "validate": Entry("service.cli.validate:validate", "Check a file of records, offline."),
    "config": Entry("service.cli.config:config", "Print the settings in force."),
    "thresholds": Entry("service.cli.thresholds:thresholds", "Show, set or preview thresholds."),
    "erase": Entry("service.cli.erase:erase", "Forget a member of an organisation."),
    "token": Entry("service.cli.token:token", "Make a token for the API, for development."),
    "doctor": Entry("service.cli.doctor:doctor", "Check that all parts are there and well."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name, and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names, in the order in which they are useful."""
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        """The command of this name, or None."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        try:
            command: click.Command = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in ("service", "db", "streams"):
                raise
            raise NotReady(
                f"{cmd_name} needs the package {error.name}, which is not installed here: use "
                f"`./run engagement {cmd_name}` in a checkout"
            ) from None
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="engagement-scoring", prog_name="engagement")
def engagement() -> None:
    """Engagement scoring: who drifts away, why, and when that is about to change.

    Settings come from the environment: see `engagement config`.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; always ends by SystemExit."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and give its exit code; what goes wrong is said on standard error."""
    try:
        result = engagement.main(arguments, prog_name="engagement", standalone_mode=False)
    except click.exceptions.Abort:
        return _say("interrupted", INTERRUPTED)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except EngagementError as error:
        return _say(explanation(error), exit_code_of(error))
    except OSError as error:
        if error.errno not in NO_OUTPUT:
            raise
        _let_go_of_output()
        return _say(f"could not write: {error.strerror}", FAILED)
    return result if isinstance(result, int) else DONE


def exit_code_of(error: EngagementError) -> int:
    """2 for wrong settings, 1 for everything else."""
    return WRONG_USE if isinstance(error, SettingsError) else FAILED


def explanation(error: EngagementError) -> str:
    """One line: what is wrong, and what to do next."""
    text = " ".join(str(error).split())
    if isinstance(error, SettingsError):
        return f"wrong settings: {text}"
    if isinstance(error, NotReady | Refused) or not isinstance(error, Retryable):
        return text
    return f"{text}: is it running, and is its address right? See `engagement doctor`"


def _let_go_of_output() -> None:
    """What could not be written would be tried again at the end, and fail with a traceback."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _say(text: str, code: int) -> int:
    click.echo(f"engagement: {text}", err=True)
    return code


if __name__ == "__main__":
    main()
