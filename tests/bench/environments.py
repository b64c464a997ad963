"""Throw-away environments for the peers, each with its own pinned packages, in the cache folder."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from service.demo.local import folders
from tests.bench.ground.report import say

LOCKS = Path(__file__).parent / "peers"
INSTALL_TIMEOUT_S = 600


def python_of(name: str) -> Path:
    """The Python of a peer's environment, which is made on first use from `peers/<name>.lock`.

    A lock is written anew from `peers/<name>.in` by

        uv pip compile --generate-hashes --universal --python-version 3.11 --no-header -q \
            -o NAME.lock NAME.in
    """
    lock = LOCKS / f"{name}.lock"
    mark = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:12]
    parent = folders.cache_folder() / "bench-peers"
    folders.make_folder(parent)
    folder = parent / f"{name}-{mark}"
    with folders.locked(parent / f"{name}.lock"):
        if not folder.exists():
            say(f"making the environment of {name}")
            _make(folder, lock)
    return folder / "bin" / "python"


def _make(folder: Path, lock: Path) -> None:
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    _run("venv", "-q", "--relocatable", "--python", sys.executable, str(part))
    python = str(part / "bin" / "python")
    _run("pip", "install", "-q", "--python", python, "--require-hashes", "-r", str(lock))
    part.rename(folder)


def _run(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "uv", *arguments],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        timeout=INSTALL_TIMEOUT_S,
    )


def version_in(name: str, package: str) -> str:
    """The version that a peer's lock pins."""
    for line in (LOCKS / f"{name}.lock").read_text("utf-8").splitlines():
        if line.startswith((f"{package}==", f"{package}[")):
            return line.split("==", 1)[1].split(" ", 1)[0]
    raise LookupError(f"{package} is not in {name}.lock")
