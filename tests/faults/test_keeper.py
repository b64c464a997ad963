"""Processes that are held can't outlive their owner, whatever ends it."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.demo.local import Keeper, LocalServerError
from service.demo.local import leash as leash_script
from tests.owners import Owner, pids_with, wait_until

# Starts a grandchild in its own session, which no signal to the group reaches, and waits.
PARENT = """
import subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)", MARK]
subprocess.Popen(sleep, start_new_session=True)
print("both up", flush=True)
time.sleep(600)
"""


def family(mark: Path) -> list[str]:
    return [sys.executable, "-c", f"MARK = {str(mark)!r}{PARENT}"]


def alone(mark: Path) -> list[str]:
    return [sys.executable, "-c", "import time; time.sleep(600)", str(mark)]


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    with Keeper() as keeper:
        yield keeper


def test_output_is_logged_and_the_exit_code_reported(keeper: Keeper, tmp_path: Path) -> None:
    log = tmp_path / "log"
    keeper.start("it", [sys.executable, "-c", "print('said'); raise SystemExit(7)"], log=log)
    assert keeper.wait("it", 10) == 7
    assert log.read_text() == "said\n"


def test_a_failing_command_is_quoted_in_the_error(keeper: Keeper, tmp_path: Path) -> None:
    code = "import sys; sys.exit('the reason')"
    with pytest.raises(LocalServerError, match="exit code 1\nthe reason"):
        keeper.run("it", [sys.executable, "-c", code], log=tmp_path / "log", timeout_s=10)


def test_a_command_that_hangs_is_ended(keeper: Keeper, tmp_path: Path) -> None:
    mark = tmp_path / "hangs"
    with pytest.raises(LocalServerError, match="did not finish in 1 s\nboth up"):
        keeper.run("it", family(mark), log=tmp_path / "log", timeout_s=1)
    wait_until(lambda: not pids_with(mark))


def test_what_cannot_be_executed_is_an_error(keeper: Keeper, tmp_path: Path) -> None:
    with pytest.raises(LocalServerError, match="no-such-program"):
        keeper.start("it", [tmp_path / "no-such-program"], log=tmp_path / "log")
    assert not keeper.running("it")


def test_the_environment_is_not_handed_on(
    keeper: Keeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "x")
    code = "import os; print(sorted(os.environ))"
    keeper.run("it", [sys.executable, "-c", code], log=tmp_path / "log", timeout_s=10)
    assert "SECRET" not in (tmp_path / "log").read_text()


def test_a_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leash_script, "LOG_LIMIT_BYTES", 1000)
    log = leash_script.BoundedLog(tmp_path / "log")
    for number in range(100):
        log.write(b"%099d\n" % number)
    log.file.close()
    sizes = [path.stat().st_size for path in sorted(tmp_path.iterdir())]
    assert len(sizes) == 2
    assert max(sizes) <= 1100
    assert (tmp_path / "log").read_bytes().endswith(b"99\n")


def test_a_server_takes_what_it_started_along(keeper: Keeper, tmp_path: Path) -> None:
    mark = tmp_path / "family"
    keeper.start("it", family(mark), log=tmp_path / "log")
    wait_until(lambda: len(pids_with(mark)) == 2)
    keeper.signal("it", signal.SIGKILL)
    assert keeper.wait("it", 10) == -signal.SIGKILL
    assert not pids_with(mark)


OWNER = """
import sys, time
from pathlib import Path
from service.demo.local import Keeper
folder, mark = map(Path, sys.argv[1:])
keeper = Keeper(folder, temporary=True)
keeper.start("it", {argv}, log=folder / "log")
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_nothing_outlives_its_owner(tmp_path: Path, end: signal.Signals) -> None:
    folder, mark = tmp_path / "data", tmp_path / "mark"
    folder.mkdir()
    with Owner(OWNER.format(argv=family(mark)), folder, mark) as owner:
        owner.wait_for("ready")
        wait_until(lambda: len(pids_with(mark)) >= 3)
        owner.end(end)
    wait_until(lambda: not pids_with(mark) and not folder.exists())


@pytest.mark.skipif(not leash_script.ON_LINUX, reason="only Linux tells children of the end")
def test_nothing_outlives_a_killed_leash(tmp_path: Path) -> None:
    folder, mark = tmp_path / "data", tmp_path / "mark"
    folder.mkdir()
    with Owner(OWNER.format(argv=alone(mark)), folder, mark) as owner:
        owner.wait_for("ready")
        (leash,) = pids_with(Path("leash.py"), folder)
        leash.kill(signal.SIGKILL)
        wait_until(lambda: [found.pid for found in pids_with(mark)] == [owner.process.pid])


SLOW_TO_STOP = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: time.sleep(1) or exit())
print("up", flush=True)
time.sleep(600)
"""


def test_a_folder_has_one_owner_and_waits_for_the_former_one(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = Keeper(tmp_path)
    first.start("slow", [sys.executable, "-c", SLOW_TO_STOP], log=log)
    wait_until(lambda: log.read_text() == "up\n")
    first._commands.close()
    began = time.monotonic()
    with Keeper(tmp_path):
        assert time.monotonic() - began > 0.5
    first.close()


def test_a_folder_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Keeper(tmp_path):
        monkeypatch.setattr("service.demo.local.keeper.HOLD_TIMEOUT_S", 0.5)
        with pytest.raises(LocalServerError):
            Keeper(tmp_path)
