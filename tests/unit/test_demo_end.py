"""The demo's way to end, also where a script has started it in the background."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.command import ROOT, process_environment

WAITING = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as shells do it for `demo &`
from service.demo.show import _end_like_ctrl_c
_end_like_ctrl_c()
try:
    print("waiting", flush=True)
    time.sleep(30)
except KeyboardInterrupt:
    print("ending", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_it_ends_where_ctrl_c_was_ignored(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITING],
        env=process_environment({}), cwd=ROOT, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        assert process.wait(20) == 0
        assert process.stdout.read() == "ending\n"
