"""A Chromium to test with: the system's, else Playwright's, else one that is installed now."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL_TIMEOUT_S = 600


class NoChromium(Exception):
    """There is none, and none could be installed; the message says what to run."""


def find() -> Path | None:
    """A Chromium that is there: TEST_CHROMIUM, one on the path, or Playwright's own."""
    given = os.environ.get("TEST_CHROMIUM")
    if given:
        return Path(given)
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return Path(found)
    return _playwrights_own()


def _playwrights_own() -> Path | None:
    program = (
        "from playwright.sync_api import sync_playwright as p\n"
        "with p() as q: print(q.chromium.executable_path)"
    )
    asked = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    path = Path(asked.stdout.strip() or "/nowhere")
    return path if asked.returncode == 0 and path.exists() else None


def is_root_on_debian() -> bool:
    """Whether the system's own package can be installed."""
    return os.geteuid() == 0 and Path("/etc/debian_version").exists()


def find_or_install(*, from_debian: bool | None = None) -> Path:
    """A Chromium, installed if need be; takes up to some minutes then. Raises NoChromium.

    `from_debian`: by the Debian package rather than Playwright's download; None: where one can.
    """
    found = find()
    if found is not None:
        return found
    if from_debian is None:
        from_debian = is_root_on_debian()
    steps = (
        [
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-y", "--no-install-recommends", "chromium"],
        ]
        if from_debian
        else [[sys.executable, "-m", "playwright", "install", "chromium"]]
    )
    line = " && ".join(" ".join(step) for step in steps)
    for step in steps:
        try:
            done = subprocess.run(
                step, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoChromium(f"no Chromium: run `{line}` ({error})") from error
        if done.returncode != 0:
            raise NoChromium(f"no Chromium: run `{line}`\n{done.stdout}{done.stderr}")
    found = find()
    if found is None:
        raise NoChromium(f"no Chromium although it was installed: run `{line}`")
    return found
