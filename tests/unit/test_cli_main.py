"""The command line itself: what it imports, how it fails, what it says."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest

from service.cli import main
from service.errors import (
    Conflict,
    EngagementError,
    NotReady,
    Retryable,
    SettingsError,
)
from tests.command import COMMAND, ROOT, process_environment, settings_for

HEAVY = ("faust", "aiokafka", "asyncpg", "fastapi", "anthropic", "pydantic", "structlog", "rich")


def test_help_imports_nothing_heavy() -> None:
    code = f"""
import sys
from service.cli.main import run
assert run(["--help"]) == 0
print("imported:", sorted(set({HEAVY}) & set(sys.modules)))"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "imported: []"
    for name in main.COMMANDS:
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_is_there_and_explains_itself(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run([name, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"engagement {name}" in said
    # The first line of the help of its own, below the usage.
    assert len(said.split("\n\n")[1].strip()) > 10


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["tail"],
        ["tail", "nosuch"],
        ["import", "people", "x.csv"],
        ["dlq", "replay"],
        ["doctor", "--x"],
    ],
)
def test_wrong_use_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Usage: engagement" in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SettingsError("ENGAGEMENT_API_PORT: no"), 2, "wrong settings: ENGAGEMENT_API_PORT: no"),
        (NotReady("missing topics: run `engagement topics apply`"), 1,
         "missing topics: run `engagement topics apply`"),
        (Retryable("broker: away"), 1,
         "broker: away: is it running, and is its address right? See `engagement doctor`"),
        (Conflict("somebody\nelse was first"), 1, "somebody else was first"),
    ],
)  # fmt: skip
def test_errors_are_one_line(
    error: EngagementError,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(main.LazyGroup, "get_command", lambda *_: failing)
    assert main.run(["worker"]) == code
    captured = capsys.readouterr()
    assert captured.err == f"engagement: {said}\n"
    assert captured.out == ""


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def failing() -> None:
        raise KeyError("a defect")

    monkeypatch.setattr(main.LazyGroup, "get_command", lambda *_: failing)
    with pytest.raises(KeyError):
        main.run(["worker"])


def test_ctrl_c_is_exit_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main.LazyGroup, "get_command", lambda *_: interrupted)
    assert main.run(["tail"]) == 130
    assert capsys.readouterr().err.strip() == "engagement: interrupted"


@pytest.mark.parametrize("command", [["config"], ["config", "--markdown"], ["--help"]])
def test_where_nothing_can_be_written_is_said_in_one_line(
    command: list[str], tmp_path: Path
) -> None:
    with (tmp_path / "output").open("w") as output:
        done = subprocess.run(
            [*COMMAND, *command],
            env=process_environment(settings_for()),
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            # As on a device that is full, which is not to be had everywhere.
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
        )
    assert done.returncode == 1
    assert done.stderr == "engagement: could not write: File too large\n"


def test_other_failures_of_the_system_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @click.command()
    def failing() -> None:
        raise PermissionError(errno.EPERM, "a defect")

    monkeypatch.setattr(main.LazyGroup, "get_command", lambda *_: failing)
    with pytest.raises(PermissionError):
        main.run(["worker"])


@pytest.mark.parametrize("command", [["worker"], ["migrate"], ["topics", "apply"], ["doctor"]])
def test_wrong_settings_stop_the_start_and_are_named(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENGAGEMENT_API_PRT", "1")
    assert main.run(command) == 2
    assert "ENGAGEMENT_API_PRT (do you mean ENGAGEMENT_API_PORT?)" in capsys.readouterr().err
    monkeypatch.delenv("ENGAGEMENT_API_PRT")
    monkeypatch.setenv("DATABASE_URL", "mysql://root:hunter22@localhost/x")
    assert main.run(command) == 2
    said = capsys.readouterr().err
    assert said == "engagement: wrong settings: DATABASE_URL: must begin with postgresql://\n"
