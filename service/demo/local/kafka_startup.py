"""Make the startup cache, after which a broker and Kafka's tools start in half the time.

It takes some ten seconds and 70 MB in the cache folder, so it is for who starts many, as the tests
do: ``.venv/bin/python -m service.demo.local.kafka_startup``.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from service.demo.local import folders
from service.demo.local.java import SHORT_LIVED, startup_cache
from service.demo.local.kafka import LocalKafka
from service.demo.local.keeper import LocalServerError

STOP_TIMEOUT_S: Final = 60.0


def make_startup_cache() -> None:
    """Make the cache unless it is there. Safe to call from several processes at once.

    Raises LocalServerError when no broker starts, or Java makes none of it.
    """
    cache = startup_cache()
    with folders.locked(cache.with_name(f"{cache.name}.lock")):
        if cache.exists():
            return
        part = cache.with_name(f"{cache.name}.part")
        part.unlink(missing_ok=True)
        print("making a startup cache for Apache Kafka (70 MB), once", file=sys.stderr)
        # Java looks at one start, and writes what that took when the broker ends in good order.
        with LocalKafka(java_options=(*SHORT_LIVED, f"-XX:AOTCacheOutput={part}")) as broker:
            broker.stop()
        if not part.exists():
            message = f"Java has not made {part}"
            raise LocalServerError(message)
        part.rename(cache)


if __name__ == "__main__":
    make_startup_cache()
    print(os.fspath(startup_cache()))
