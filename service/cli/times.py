"""Instants as arguments of commands."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from service.instants import parse_instant


class Instant(click.ParamType):
    """RFC 3339 with an offset, as on the wire."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """The instant in UTC."""
        try:
            instant = parse_instant(value)
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)
        if instant.tzinfo is None:
            self.fail(f"{value!r} has no offset: write 2026-03-01T00:00:00Z", param, ctx)
        return instant
