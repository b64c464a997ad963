"""The bootstrap: what it says, what it starts from, and that the lock says it all."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from itertools import chain
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with an environment of its own."""
    loader = SourceFileLoader("run_script", str(ROOT / "run"))
    spec = spec_from_loader(loader.name, loader)
    assert spec
    module = module_from_spec(spec)
    loader.exec_module(module)
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    monkeypatch.setattr(module, "VENV", str(venv))
    monkeypatch.setattr(module, "STAMP", str(venv / "complete"))
    monkeypatch.setattr(module, "PYTHON", str(venv / "bin" / "python"))
    return module


def started(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "run", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )


def test_help_is_for_standard_output() -> None:
    done = started("--help")
    assert done.returncode == 0
    assert "./run demo" in done.stdout


@pytest.mark.parametrize("arguments", [(), ("worker", "--all"), ("check", "surplus")])
def test_wrong_use_is_told_on_standard_error(arguments: tuple[str, ...]) -> None:
    done = started(*arguments)
    assert done.returncode == 2
    assert not done.stdout
    if arguments == ("worker", "--all"):
        assert "./run engagement worker --all" in done.stderr


def test_an_environment_is_ready_only_when_all_of_it_fits(run: ModuleType) -> None:
    stamp = run.wanted_stamp()
    assert not run.is_ready(stamp)
    Path(run.STAMP).write_text(stamp)
    assert not run.is_ready(stamp)  # complete once, but its Python is gone
    Path(run.PYTHON).symlink_to(sys.executable)
    assert run.is_ready(stamp)
    assert not run.is_ready(stamp.replace(stamp[:8], "another lock"))


def test_a_moved_checkout_gets_a_new_environment(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = run.wanted_stamp()
    monkeypatch.setattr(run, "ROOT", "/elsewhere")
    assert run.wanted_stamp() != stamp


def test_ready_means_that_nothing_is_set_up(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(run.STAMP).write_text(run.wanted_stamp())
    Path(run.PYTHON).symlink_to(sys.executable)
    monkeypatch.setattr(run, "set_up", lambda stamp: pytest.fail("was set up again"))
    run.ensure_ready()


def test_every_package_of_the_lock_has_hashes_and_no_address() -> None:
    pinned = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(pinned) > 50
    for block in pinned:
        assert re.match(r"[a-z0-9.-]+==\S+", block), block[:80]
        assert "--hash=sha256:" in block, block[:80]
    assert not re.search(r"index-url|find-links|trusted-host|://|^-e", LOCK, re.MULTILINE)


def test_the_lock_holds_what_the_project_asks_for() -> None:
    versions = {
        canonicalize_name(name): version
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\\n]+)", LOCK, re.MULTILINE)
    }
    asked = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
    for line in asked:
        requirement = Requirement(line)
        version = versions.get(canonicalize_name(requirement.name))
        assert version, f"{line} is not in requirements.lock: see CONTRIBUTING.md"
        assert requirement.specifier.contains(version, prereleases=True), f"{line}: {version}"
