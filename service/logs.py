"""Logs: one line an event on standard error, the same from us, Faust, aiokafka and uvicorn.

JSON unless a terminal reads along. No line ever holds a secret of the settings, a password of a
URL, or what PostgreSQL quotes of a row in an error's DETAIL.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any, Final, TextIO
from urllib.parse import quote, unquote, urlsplit

import structlog
from pydantic import SecretStr

from service.settings import Settings

MASK: Final = "***"
SHORTEST_SECRET: Final = 4
# Of these we want to hear only what goes wrong, unless a worker asks for more.
LIBRARIES: Final = ("aiokafka", "asyncio", "faust", "mode", "uvicorn", "httpx2", "httpcore2")

_URL_PASSWORD: Final = re.compile(r"(?<=://)([^\s:/@\"']*):[^\s/\"']*@")
# What PostgreSQL quotes of rows, which may hold line breaks: up to the next part of the message.
_ROW_VALUES: Final = re.compile(
    r"\n(DETAIL|CONTEXT|QUERY): .*?(?=\nHINT: |\n\nThe above exception|\n\nDuring handling|\Z)",
    re.DOTALL,
)

Event = MutableMapping[str, Any]


def configure(
    settings: Settings,
    *,
    level: str | int | None = None,
    libraries: str | int | None = None,
    stream: TextIO | None = None,
) -> None:
    """Send every log line of this process to `stream` (standard error) in one form.

    `level` overrides the settings' level; `libraries` is that of other people's code (default:
    warnings). May be called again; the last call counts.
    """
    stream = stream or sys.stderr
    chosen = logging.getLevelNamesMapping()[settings.log_level] if level is None else level
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
    ]
    plain = settings.log_format == "plain" or (settings.log_format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # Frames without their variables: those may hold texts and notes.
                structlog.processors.format_exc_info,
                _Mask(secrets_of(settings)),
                *(_plain(colors=stream.isatty()) if plain else _json()),
            ],
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(chosen)
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING if libraries is None else libraries)
    logging.captureWarnings(True)


def secrets_of(settings: Settings) -> list[str]:
    """Every text that must not be shown, also as it stands in a URL, longest first."""
    found: set[str] = set()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            secret = value.get_secret_value()
            password = urlsplit(secret).password if "://" in secret else None
            for text in (secret, password):
                if text:
                    found |= {text, quote(text, safe=""), unquote(text)}
    return sorted((text for text in found if len(text) >= SHORTEST_SECRET), key=len, reverse=True)


def without_secrets(text: str, masked: Collection[str]) -> str:
    """The text with secrets masked and row values left out."""
    for secret in masked:
        text = text.replace(secret, MASK)
    return _ROW_VALUES.sub("", _URL_PASSWORD.sub(rf"\1:{MASK}@", text))


class _Mask:
    """Masks every value of an event, before it is put into a form that might hide a secret."""

    def __init__(self, masked: Collection[str]) -> None:
        self._masked = masked

    def __call__(self, _logger: Any, _method: str, event: Event) -> Event:
        return {name: self._clean(value) for name, value in event.items()}

    def _clean(self, value: Any) -> Any:
        if value is None or isinstance(value, int | float):
            return value
        if isinstance(value, Mapping):
            return {str(name): self._clean(part) for name, part in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._clean(part) for part in value]
        return without_secrets(str(value), self._masked)


def _json() -> list[Any]:
    return [
        _first_what_matters,
        structlog.processors.JSONRenderer(ensure_ascii=False),
    ]


def _first_what_matters(_logger: Any, _method: str, event: Event) -> Event:
    first = {name: event.pop(name) for name in ("time", "level", "event") if name in event}
    return {**first, **event}


def _plain(*, colors: bool) -> list[Any]:
    return [
        structlog.dev.ConsoleRenderer(
            colors=colors,
            timestamp_key="time",
            exception_formatter=structlog.dev.plain_traceback,
        )
    ]
