"""Files that people hand in: plain or gzip, or standard input; rows with their numbers."""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, NamedTuple, cast

from service.errors import InvalidInput

GZIP_MAGIC: Final = b"\x1f\x8b"
FIRST_DATA_ROW: Final = 2  # as spreadsheets count: the header is row 1
MAX_CELL: Final = 1_000_000


class Row(NamedTuple):
    """One row below the header: its number, its cells by column, what is wrong with its shape."""

    number: int
    cells: dict[str, str | None]
    problem: str | None


class Opened:
    """An open file: `text` to read from; `position` and `size` in bytes of the file itself."""

    def __init__(self, raw: IO[bytes], name: str, size: int | None) -> None:
        self.name = name
        self.size = size
        self._raw = raw
        buffered = io.BufferedReader(raw) if isinstance(raw, io.RawIOBase) else raw
        self.binary: IO[bytes] = buffered
        if buffered.peek(2)[:2] == GZIP_MAGIC:  # type: ignore[attr-defined]  # both have it
            self.binary = cast("IO[bytes]", gzip.GzipFile(fileobj=buffered))

    @property
    def position(self) -> int:
        """Bytes read so far, before decompression."""
        return self._raw.tell() if self.size is not None else 0


@contextmanager
def opened(path: str) -> Iterator[Opened]:
    """Open a file, or standard input for `-`. Raises InvalidInput when it can't be read."""
    try:
        if path == "-":
            yield Opened(sys.stdin.buffer, "standard input", None)
        else:
            with Path(path).open("rb") as raw:
                yield Opened(raw, path, Path(path).stat().st_size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInput(f"{path}: the gzip data is damaged: {error}") from None
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InvalidInput(f"{path}: {error.strerror}") from None


class Table:
    """A CSV file: its columns, then its rows."""

    def __init__(self, file: Opened) -> None:
        """Reads the header. Raises InvalidInput when there is none."""
        csv.field_size_limit(MAX_CELL)
        self._rows = csv.reader(_decoded(file.binary), strict=True)
        try:
            self.columns = [name.strip() for name in next(self._rows, [])]
        except csv.Error as error:
            raise InvalidInput(f"{file.name}: row 1: {error}") from None
        # A file in another encoding, or of no text at all, is refused as a whole. Much of UTF-16 is
        # UTF-8 as well, but has a NUL beside every letter.
        if not _is_utf_8(self.columns) or "\0" in "".join(self.columns):
            raise InvalidInput(f"{file.name}: row 1: not UTF-8 text")
        if not any(self.columns):
            raise InvalidInput(f"{file.name}: the first row must name the columns")

    def __iter__(self) -> Iterator[Row]:
        """The rows; empty ones are passed over."""
        number = FIRST_DATA_ROW - 1
        while True:
            number += 1
            try:
                cells = next(self._rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(number, {}, str(error))
                continue
            if not cells:
                continue
            problem = self._problem(cells)
            yield Row(number, dict(zip(self.columns, cells, strict=False)), problem)

    def _problem(self, cells: list[str]) -> str | None:
        if not _is_utf_8(cells):
            return "not UTF-8"
        if len(cells) != len(self.columns):
            return f"{len(cells)} cells for {len(self.columns)} columns"
        return None


def _is_utf_8(cells: list[str]) -> bool:
    """Whether what was `_decoded` into these cells was UTF-8."""
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True


def _decoded(binary: IO[bytes]) -> Iterator[str]:
    for number, line in enumerate(binary):
        # Spreadsheets put a mark before the first. What is not UTF-8 harms its own row alone: it
        # becomes what no UTF-8 can be.
        yield line.decode("utf-8" if number else "utf-8-sig", "surrogateescape")


def lines(file: Opened) -> Iterator[tuple[int, bytes]]:
    """(number, content) of every line that is not empty, counted from 1."""
    for number, line in enumerate(file.binary, start=1):
        content = line.rstrip(b"\r\n")
        if content:
            yield number, content
