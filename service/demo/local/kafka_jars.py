"""Apache Kafka's jars: a committed list with checksums, fetched by jgo into the cache folder.

`kafka-jars.sha256` is the lock: what `sha256sum --check` understands, with paths as in a Maven
repository, so each line is a coordinate and its content. Nothing that is not in it is used.
To change the version, edit the coordinates and write it anew:
``.venv/bin/python -m service.demo.local.kafka_jars``.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

from service.demo.local import folders
from service.demo.local.keeper import LocalServerError

LOCK = Path(__file__).with_name("kafka-jars.sha256")
KAFKA_VERSION = "4.3.1"
LOG4J_VERSION = "2.25.4"
BROKER = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
# Taken alone: as roots, the tools' metadata pulls in Kafka Connect and log4j's moves versions.
SINGLES = (
    f"org.apache.kafka:kafka-tools:{KAFKA_VERSION}",
    f"org.apache.kafka:kafka-tools-api:{KAFKA_VERSION}",
    "net.sourceforge.argparse4j:argparse4j:0.7.0",
    # Without a binding the broker logs nothing.
    f"org.apache.logging.log4j:log4j-api:{LOG4J_VERSION}",
    f"org.apache.logging.log4j:log4j-core:{LOG4J_VERSION}",
    f"org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J_VERSION}",
)
TIMEOUT_S = 30
DOWNLOADS_AT_ONCE = 6
ATTEMPTS = 3


class Jar(NamedTuple):
    """One line of the lock: the path in a Maven repository and the content's SHA-256."""

    path: Path
    sha256: str


def locked_jars() -> list[Jar]:
    """The committed list."""
    lines = LOCK.read_text(encoding="ascii").splitlines()
    pairs = (line.split("  ", 1) for line in lines)
    return [Jar(Path(path), sha256) for sha256, path in pairs]


@cache
def kafka_jars() -> Path:
    """The folder of Kafka's jars in the cache, complete and checked; fetched if need be.

    Raises LocalServerError when a jar can't be fetched or is not the one of the list. Safe to
    call from several processes at once.
    """
    # The name holds the list's own checksum: an edited list is another folder.
    fingerprint = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    folder = folders.cache_folder() / f"kafka-{KAFKA_VERSION}-{fingerprint}"
    with folders.locked(folder.with_name(f"{folder.name}.lock")):
        if not all(_is_whole(folder / jar.path.name, jar) for jar in locked_jars()):
            shutil.rmtree(folder, ignore_errors=True)
            _fetch_all(folder)
    return folder


def _fetch_all(folder: Path) -> None:
    # Imported here, as jgo below, because only the very first start needs it.
    import truststore

    part = folder.with_name(f"{folder.name}.part")
    # A start that was stopped half-way left checked jars here: only the missing ones are fetched.
    (part / "jars").mkdir(parents=True, exist_ok=True)
    # Certificates that the machine trusts, a company's own for example, count. This has to come
    # before jgo is imported, and nothing else of this process is to be changed by it.
    truststore.inject_into_ssl()
    jars = locked_jars()
    print(f"fetching Apache Kafka {KAFKA_VERSION} ({len(jars)} jars, 45 MB), once", file=sys.stderr)
    pool = ThreadPoolExecutor(DOWNLOADS_AT_ONCE)
    try:
        for fetched in [pool.submit(_fetch, jar, part) for jar in jars]:
            fetched.result()
    finally:
        # After a failure or Ctrl-C what has not begun is left.
        pool.shutdown(cancel_futures=True)
        truststore.extract_from_ssl()
    shutil.rmtree(part / "repository", ignore_errors=True)
    (part / "jars").rename(folder)
    part.rmdir()


def _fetch(jar: Jar, part: Path) -> None:
    """Fetch one jar; a torn download is tried again, one that stays different is refused."""
    target = part / "jars" / jar.path.name
    reason = ""
    for attempt in range(ATTEMPTS):
        if _is_whole(target, jar):
            return
        try:
            fetched = _download(jar, part / "repository", with_mavens=attempt == 0)
        except (OSError, RuntimeError) as error:
            reason = str(error)
        else:
            if _is_whole(fetched, jar):
                shutil.copyfile(fetched, target)
            else:
                reason = f"its checksum is not the one of {LOCK.name}"
        # What lies there would be taken for whole by the next attempt.
        (part / "repository" / jar.path).unlink(missing_ok=True)
    if not _is_whole(target, jar):
        message = (
            f"Apache Kafka's {jar.path.name} can't be fetched: {reason}. Check the network, or "
            "set KAFKA_BOOTSTRAP_SERVERS to use a broker of your own"
        )
        raise LocalServerError(message)


def _download(jar: Jar, repository: Path, *, with_mavens: bool) -> Path:
    """Fetch by jgo; jars that Maven has on this machine already are read if asked for."""
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext

    context = MavenContext(
        repo_cache=repository,
        local_repos=[GlobalSettings.load().repo_cache] if with_mavens else [],
        timeout=TIMEOUT_S,
    )
    *group, artifact, version, _ = jar.path.parts
    project = context.project(".".join(group), artifact)
    return Path(project.at_version(version).artifact().resolve())


def _is_whole(path: Path, jar: Jar) -> bool:
    return path.exists() and _sha256(path) == jar.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_lock() -> None:
    """Resolve the coordinates, fetch every jar once, and write the list with what was fetched."""
    import jgo
    from jgo.maven import MavenContext

    context = MavenContext()
    artifacts = [
        *jgo.resolve(BROKER),
        *(context.create_dependency(coordinate).artifact for coordinate in SINGLES),
    ]
    lines = set()
    for artifact in artifacts:
        path = Path(artifact.resolve())
        place = artifact.component.path_prefix / artifact.filename
        lines.add(f"{_sha256(path)}  {place.as_posix()}\n")
    LOCK.write_text("".join(sorted(lines, key=lambda line: line[66:])), encoding="ascii")


if __name__ == "__main__":
    write_lock()
