"""What is wrong with the rows of a file: the first ones in full, the rest counted."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Final

import click

from service.decoding import times_of
from service.errors import DeadLetter, DeadLetterCode
from service.events import InputRecord

SHOWN: Final = 20


class Problems:
    """Collects refused rows and says so on standard error."""

    def __init__(self, name: str, *, shown: int = SHOWN) -> None:
        """`name` of the file; `shown` problems are printed, None of them twice."""
        self.by_code: Counter[str] = Counter()
        self._name = name
        self._shown = shown

    @property
    def count(self) -> int:
        """Refused rows."""
        return self.by_code.total()

    def add(self, row: int, code: str, message: str) -> None:
        """One refused row."""
        self.by_code[code] += 1
        if self.count <= self._shown:
            click.echo(f"{self._name}: row {row}: {code}: {message}", err=True)
        elif self._shown and self.count == self._shown + 1:
            click.echo("more rows are wrong; only counted from here on", err=True)

    def summary(self) -> str:
        """How many by code."""
        return ", ".join(f"{count} {code}" for code, count in self.by_code.most_common())


def refuse_future(record: InputRecord, max_skew_s: int) -> None:
    """Raise DeadLetter for a time further ahead than the intake takes, by our own clock."""
    latest = datetime.now(UTC) + timedelta(seconds=max_skew_s)
    for name, instant in times_of(record):
        if instant > latest:
            raise DeadLetter(DeadLetterCode.FUTURE_DATED, f"{name} is too far ahead")
