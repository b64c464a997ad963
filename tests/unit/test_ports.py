"""Ports that are given away before anybody listens on them."""

from __future__ import annotations

import subprocess
import sys

from service.demo.local.ports import free_port
from tests.owners import ROOT

# All choose from a few only, so that they would meet.
CHOOSE = """
import sys
from service.demo.local import ports
ports.FIRST_PORT, ports.LAST_PORT = 20_000, 20_060
print(*(ports.free_port() for _ in range(12)), flush=True)
sys.stdin.read()
"""

# Nobody listens on it, and all want it.
WANT = """
import sys
from service.demo.local.__main__ import usual_or_free
print(usual_or_free(int(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def test_processes_are_given_different_ports() -> None:
    given = given_to(3, CHOOSE)
    assert len(given) == 3 * 12
    assert len(set(given)) == len(given)


def test_the_usual_port_is_given_to_one() -> None:
    # It was given to a process that is over, so it is to be had again.
    usual = given_to(1, "from service.demo.local.ports import free_port; print(free_port())")[0]
    given = given_to(3, WANT, usual)
    assert given.count(usual) == 1
    assert len(set(given)) == 3
    ours = str(free_port())
    assert ours not in given_to(2, WANT, ours)


def given_to(count: int, code: str, *arguments: str) -> list[str]:
    """The ports that so many processes are given which run at the same time."""
    choosers = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            cwd=ROOT,
        )
        for _ in range(count)
    ]  # fmt: skip
    given: list[str] = []
    for chooser in choosers:
        assert chooser.stdout is not None
        given += chooser.stdout.readline().split()
    for chooser in choosers:
        chooser.communicate()
        assert chooser.returncode == 0
    return given
