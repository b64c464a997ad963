"""Ports that are given away before anybody listens on them."""

from __future__ import annotations

import subprocess
import sys

from tests.owners import ROOT

# All choose from a few only, so that they would meet.
CHOOSE = """
import sys
from service.demo.local import ports
ports.FIRST_PORT, ports.LAST_PORT = 20_000, 20_060
print(*(ports.free_port() for _ in range(12)), flush=True)
sys.stdin.read()
"""


def test_processes_are_given_different_ports() -> None:
    choosers = [
        subprocess.Popen(
            [sys.executable, "-c", CHOOSE],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for _ in range(3)
    ]  # fmt: skip
    given: list[str] = []
    for chooser in choosers:
        assert chooser.stdout is not None
        given += chooser.stdout.readline().split()
    for chooser in choosers:
        chooser.communicate()
        assert chooser.returncode == 0
    assert len(given) == 3 * 12
    assert len(set(given)) == len(given)
