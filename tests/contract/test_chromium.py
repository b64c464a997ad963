"""Where the browser of the tests comes from, and what happens where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser.chromium import NoChromium, find, find_or_install

ROOT = Path(__file__).parents[2]
INSTALL = "apt-get update -qq && apt-get install -y --no-install-recommends chromium"


class Machine:
    """A machine with no browser and these programs alone."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.calls = folder / "calls"
        self.environment = {
            "PATH": str(self.programs),
            "PLAYWRIGHT_BROWSERS_PATH": str(folder / "none"),
            # Whatever Playwright wants to fetch is not there.
            "PLAYWRIGHT_DOWNLOAD_HOST": "http://127.0.0.1:9",
        }

    def program(self, name: str, text: str = "") -> Path:
        path = self.programs / name
        path.write_text(f'#!/bin/sh\necho "$0 $*" >> {self.calls}\n{text}\n')
        path.chmod(0o755)
        return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.delenv("TEST_CHROMIUM", raising=False)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


def test_a_given_browser_comes_first(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.program("chromium")
    monkeypatch.setenv("TEST_CHROMIUM", "/opt/other/chrome")
    assert find() == Path("/opt/other/chrome")


@pytest.mark.parametrize("name", ["chromium", "chromium-browser", "google-chrome"])
def test_then_the_systems(machine: Machine, name: str) -> None:
    path = machine.program(name)
    assert find_or_install() == path
    assert not machine.calls.exists(), "nothing is installed where there is one"


def test_else_debians_package_is_installed(machine: Machine) -> None:
    browser = machine.programs / "chromium"
    machine.program(
        "apt-get", f'[ "$1" = install ] && printf "" > {browser} && /bin/chmod 755 {browser}; true'
    )
    assert find_or_install(from_debian=True) == browser
    calls = [line.partition("apt-get ")[2] for line in machine.calls.read_text().splitlines()]
    assert calls == INSTALL.replace("apt-get ", "").split(" && ")


@pytest.mark.parametrize("text", ["echo no network; exit 100", "true"])
def test_a_failure_says_what_to_run(machine: Machine, text: str) -> None:
    machine.program("apt-get", text)
    with pytest.raises(NoChromium) as caught:
        find_or_install(from_debian=True)
    assert f"run `{INSTALL}`" in str(caught.value)
    assert ("no network" in str(caught.value)) is ("network" in text)


def test_without_rights_it_is_playwrights_own(machine: Machine) -> None:
    with pytest.raises(NoChromium) as caught:
        find_or_install(from_debian=False)
    assert f"run `{sys.executable} -m playwright install chromium`" in str(caught.value)


@pytest.mark.timeout(180)
def test_without_a_browser_the_tier_fails_and_does_not_skip(machine: Machine) -> None:
    machine.program("apt-get", "exit 100")
    kept = {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "tests/browser/test_pages.py", "-k", "counts"],
        cwd=ROOT, env={**kept, **machine.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no Chromium: run `" in done.stdout
    outcome = done.stdout.splitlines()[-1]
    assert "error" in outcome
    assert "skipped" not in outcome
    assert "passed" not in outcome
