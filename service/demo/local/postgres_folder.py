"""The files of one PostgreSQL server: its data, password and log, and whom they belong to."""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from service.demo.local import folders
from service.demo.local.keeper import Account, LocalServerError

STATUS_LINE = 7  # of postmaster.pid, counted from 0; the last one


@dataclass(frozen=True)
class PostgresFolder:
    """A folder of ours, and in it what belongs to the server's user (null: ourselves)."""

    path: Path
    account: Account | None

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.path / "pgdata"

    @property
    def log(self) -> Path:
        """What the server and the programs around it print."""
        return self.path / "postgres.log"

    @property
    def password_file(self) -> Path:
        """The superuser's password, readable for the server's user alone."""
        return self.path / "password"

    @property
    def is_made(self) -> bool:
        """Whether there is a cluster in it."""
        return (self.data / "PG_VERSION").exists()

    def make(self) -> None:
        """Make the folder. Raises LocalServerError when the server's user can't get there."""
        folders.make_folder(self.path)
        if self.account and not folders.others_can_enter(self.path):
            message = (
                f"PostgreSQL runs as user {folders.UNPRIVILEGED_USER!r} here, which can't enter "
                f"{self.path}: give a folder that every user can pass through, or none"
            )
            raise LocalServerError(message)

    def make_data(self, password: str = "") -> None:
        """Make the data directory, empty, and keep a password for it (a new one by default)."""
        # A start that was killed half-way may have left a part of a cluster, which initdb refuses.
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(mode=0o700)
        self._give(self.data)
        self.password_file.unlink(missing_ok=True)
        self.password_file.touch(mode=0o600)
        self.password_file.write_text(password or secrets.token_urlsafe(18), encoding="ascii")
        self._give(self.password_file)

    def password(self) -> str:
        """The superuser's password. Raises LocalServerError before there is one."""
        if not self.password_file.exists():
            message = "the server was never started, so it has no password yet"
            raise LocalServerError(message)
        return self.password_file.read_text(encoding="ascii")

    def accepts_connections(self, postmaster: int | None) -> bool:
        """Whether this postmaster wrote into its pid file that it is up."""
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        status = "".join(lines[STATUS_LINE:]).strip()
        return lines[:1] == [str(postmaster)] and status in {"ready", "standby"}

    def _give(self, path: Path) -> None:
        if self.account:
            os.chown(path, *self.account)
