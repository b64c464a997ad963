"""Ids as arguments of commands."""

from __future__ import annotations

from typing import Any

import click

from service.decoding import is_id


class Id(click.ParamType):
    """An id as on the wire.

    Whatever else is given, a variable that is not set above all, is wrong use and no name of
    somebody whom nobody knows.
    """

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The id, unchanged."""
        text = str(value)
        if not is_id(text):
            self.fail(
                "an id is made of letters, digits and . _ @ | -, begins with a letter or digit "
                "and has 128 characters at the most",
                param,
                ctx,
            )
        return text
