"""`engagement worker`."""

from __future__ import annotations

import signal
import sys

import click

from service.settings import load_settings


@click.command()
def worker() -> None:
    """Run a worker, the same as `faust -A streams.app worker`.

    It waits for topics and schema, reads the input topics, evaluates and publishes. SIGTERM and
    Ctrl-C end it in good order. Any number of workers share the work.
    """
    # Until the worker's own handlers are there, an end that is asked for is in order, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    load_settings()  # whatever is wrong with them is said before the app is built
    from streams.app import app
    from streams.worker import run

    run(app)
