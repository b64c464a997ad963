"""Log lines: one form for all, one line an event, nothing that must not be seen."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from service import logs
from service.settings import Settings, load_settings

PASSWORD = 'p"ss/w\\rd'
URL = "postgresql://owner:p%22ss%2Fw%5Crd@db.example/club"


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.root
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in logs.LIBRARIES}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def settings(**more: str) -> Settings:
    return load_settings(
        {
            "DATABASE_URL": URL,
            "ANTHROPIC_API_KEY": "key-for-nothing",
            "ENGAGEMENT_LOG_FORMAT": "json",
            **more,
        }
    )


def raise_(error: Exception) -> None:
    raise error


def logged(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_ours_and_others_in_one_form() -> None:
    stream = io.StringIO()
    logs.configure(settings(), stream=stream)
    structlog.get_logger("streams.lanes").info("claimed", action="claim", partitions=3)
    logging.getLogger("aiokafka").warning("node %s is gone", 1)
    logging.getLogger("aiokafka").info("not worth a line")
    logging.getLogger("service.other").info("plain")
    first, second, third = logged(stream)
    assert list(first)[:3] == ["time", "level", "event"]
    assert first["time"].endswith("Z")
    assert (first["event"], first["action"], first["partitions"]) == ("claimed", "claim", 3)
    assert first["logger"] == "streams.lanes"
    assert (second["event"], second["level"]) == ("node 1 is gone", "warning")
    assert second["logger"] == "aiokafka"
    assert third["event"] == "plain"
    assert set(second) <= set(first)


def test_levels() -> None:
    stream = io.StringIO()
    logs.configure(settings(ENGAGEMENT_LOG_LEVEL="ERROR"), stream=stream)
    structlog.get_logger("a").warning("no")
    logs.configure(settings(), stream=stream, level="DEBUG", libraries="DEBUG")
    structlog.get_logger("a").debug("yes")
    logging.getLogger("faust").debug("yes too")
    assert [line["event"] for line in logged(stream)] == ["yes", "yes too"]


def test_a_traceback_is_one_line_without_variables() -> None:
    stream = io.StringIO()
    logs.configure(settings(), stream=stream)

    def fail(notes: str) -> None:
        raise ValueError(f"{len(notes)} letters")

    # Not as a literal, which the traceback shows as what it is: source.
    words = ("said", "in", "confidence")
    try:
        fail(" ".join(words))
    except ValueError:
        structlog.get_logger("a").exception("failed", action="crash")
    (line,) = logged(stream)
    assert "ValueError: 18 letters" in line["exception"]
    assert stream.getvalue().count("said in confidence") == 0


@pytest.mark.parametrize("form", ["json", "plain"])
def test_secrets_are_masked_wherever_they_are(form: str) -> None:
    stream = io.StringIO()
    logs.configure(settings(ENGAGEMENT_LOG_FORMAT=form), stream=stream)
    log = structlog.get_logger("a")
    log.info(URL)
    log.info("connecting", url=URL, password=PASSWORD, nested={"again": PASSWORD})
    logging.getLogger("faust").error("key %r refused", "key-for-nothing")
    log.info("other", url="amqp://somebody:else@mq/")
    try:
        raise_(OSError(f"no route to {URL}"))
    except OSError:
        log.exception("failed")
    said = stream.getvalue()
    for secret in (PASSWORD, json.dumps(PASSWORD)[1:-1], "p%22ss", "key-for-nothing", ":else@"):
        assert secret not in said
    assert said.count(logs.MASK) >= 6


@pytest.mark.parametrize("form", ["json", "plain"])
def test_values_of_rows_that_postgresql_quotes_are_left_out(form: str) -> None:
    stream = io.StringIO()
    logs.configure(settings(ENGAGEMENT_LOG_FORMAT=form), stream=stream)
    message = (
        'null value in column "x"\nDETAIL:  Failing row (ada, a private note,\n\nof two parts).\n'
        'HINT:  Look it up.\nCONTEXT:  COPY stage, line 1: "ada a private note"\n'
    )
    try:
        raise_(RuntimeError(message))
    except RuntimeError:
        structlog.get_logger("a").exception("refused", error=message)
    assert "private note" not in stream.getvalue()
    assert "two parts" not in stream.getvalue()
    assert "Look it up" in stream.getvalue()


def test_plain_lines_for_people() -> None:
    stream = io.StringIO()
    logs.configure(settings(ENGAGEMENT_LOG_FORMAT="plain"), stream=stream)
    structlog.get_logger("streams.lanes").info("claimed", partitions=3)
    (line,) = stream.getvalue().splitlines()
    assert "claimed" in line
    assert "partitions=3" in line
    assert "\x1b" not in line
