"""The demo's way to end, also where a script has started it in the background."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest

from service.demo.show import _first_failure
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


async def test_whoever_misses_the_first_word_hears_the_second() -> None:
    """As wait_for may, before Python 3.12."""
    missed = False

    async def work() -> int:
        nonlocal missed
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            missed = True
        await asyncio.sleep(60)
        return 0

    running = asyncio.create_task(_first_failure(work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 10)
    assert missed
