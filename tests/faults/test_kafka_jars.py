"""Only the jars of the committed list are ever used, whatever happens while they are fetched."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from service.demo.local import LocalServerError, kafka_jars

GOOD, TORN = b"the jar", b"the"
PLACE = "org/example/thing/1.0/thing-1.0.jar"


@pytest.fixture
def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Fetch a list of one jar from a repository that answers with the given contents in turn."""
    lock = tmp_path / "list.sha256"
    lock.write_text(f"{hashlib.sha256(GOOD).hexdigest()}  {PLACE}\n")
    monkeypatch.setattr(kafka_jars, "LOCK", lock)
    monkeypatch.setattr("service.demo.local.folders.cache_folder", lambda: tmp_path)

    def fetch(*answers: bytes | OSError) -> Path:
        left = list(answers)

        def download(jar: kafka_jars.Jar, repository: Path, *, with_mavens: bool) -> Path:
            path = repository / jar.path
            if not path.exists():  # as jgo does: what is there is taken for whole
                path.parent.mkdir(parents=True, exist_ok=True)
                answer = left.pop(0)
                if isinstance(answer, OSError):
                    path.write_bytes(TORN)
                    raise answer
                path.write_bytes(answer)
            return path

        monkeypatch.setattr(kafka_jars, "_download", download)
        folder = kafka_jars.kafka_jars.__wrapped__()
        assert not left
        return folder

    return fetch


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_jar_is_fetched_once(fetch: Callable[..., Path]) -> None:
    assert content(fetch(GOOD)) == {"thing-1.0.jar": GOOD}
    assert content(fetch()) == {"thing-1.0.jar": GOOD}


def test_torn_and_failed_downloads_are_tried_again(fetch: Callable[..., Path]) -> None:
    assert content(fetch(TORN, OSError("reset"), GOOD)) == {"thing-1.0.jar": GOOD}


def test_another_content_is_refused(fetch: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(LocalServerError, match=r"thing-1\.0\.jar.*checksum is not the one"):
        fetch(b"evil", b"evil", b"evil")
    assert not list(tmp_path.glob("kafka-*/*.jar"))
    assert content(fetch(GOOD)) == {"thing-1.0.jar": GOOD}


def test_without_a_network_the_error_says_what_to_do(fetch: Callable[..., Path]) -> None:
    with pytest.raises(LocalServerError, match=r"no route.*KAFKA_BOOTSTRAP_SERVERS"):
        fetch(*(OSError("no route") for _ in range(3)))


def test_a_jar_that_was_changed_in_the_cache_is_fetched_again(fetch: Callable[..., Path]) -> None:
    folder = fetch(GOOD)
    (folder / "thing-1.0.jar").write_bytes(TORN)
    assert content(fetch(GOOD)) == {"thing-1.0.jar": GOOD}


def test_the_committed_list() -> None:
    jars = kafka_jars.locked_jars()
    names = [jar.path.name for jar in jars]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[0-9a-f]{64}", jar.sha256) for jar in jars)
    assert f"kafka_2.13-{kafka_jars.KAFKA_VERSION}.jar" in names
    assert {name for name in names if name.startswith("log4j-slf4j")}
