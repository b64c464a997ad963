"""A real PostgreSQL 18 as child processes: loopback only, its own folder, gone when we are gone.

PostgreSQL refuses to run as root, so as root the server runs as an unprivileged user.
"""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from service.demo.local import folders
from service.demo.local.keeper import CLEAN_ENVIRONMENT, Keeper, LocalServerError, tail
from service.demo.local.ports import free_port, require_free
from service.demo.local.postgres_folder import PostgresFolder
from service.demo.local.postgres_programs import programs_folder

USER = "postgres"
HOST = "127.0.0.1"
STOP_SIGNALS = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
PORT_ATTEMPTS = 5
POLL_S = 0.02
STATUS_LINE = 7  # of postmaster.pid, counted from 0; the last one
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
INITDB_TIMEOUT_S = 60.0
BACKUP_TIMEOUT_S = 120.0
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "shared_buffers": "128MB",
}


class LocalPostgres:
    """One PostgreSQL server; blocking, so call it by `asyncio.to_thread` from a running loop.

    Without `data_dir` the data is temporary and goes with `close` or with this process. With it,
    the folder is made if missing and a later server on it finds the data again. As root every
    folder above `data_dir` must let the unprivileged user pass. `settings` are server settings,
    for example ``{"fsync": "off"}``. Without `port` a free one is found once and then kept.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        *,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        """Prepare; nothing runs yet but the leash. Raises LocalServerError."""
        path = (data_dir or folders.temporary_folder("postgres")).resolve()
        self.folder = PostgresFolder(path, folders.server_account())
        self.folder.make()
        self.settings = {**SETTINGS, **(settings or {})}
        self.start_timeout_s = start_timeout_s
        self.pid: int | None = None
        self._given_port = port
        self._port = port
        self._keeper = Keeper(path, temporary=data_dir is None)

    @property
    def port(self) -> int:
        """The port; raises LocalServerError before the first start unless one was given."""
        if self._port is None:
            message = "the server was never started, so it has no port yet"
            raise LocalServerError(message)
        return self._port

    def dsn(self, database: str = "postgres") -> str:
        """A libpq URL for the superuser, password included: not for logs."""
        return f"postgresql://{USER}:{self.folder.password()}@{HOST}:{self.port}/{database}"

    def start(self) -> None:
        """Make the cluster if there is none, start the server, return once it takes connections.

        Raises LocalServerError, with the tail of the log, when it does not come up in time.
        """
        if self._keeper.running("postgres"):
            return
        if self._given_port:
            require_free(self._given_port, HOST)
        if not self.folder.is_made:
            self._initdb()
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self._port = self._port or free_port()
            if self._start_on(self._port):
                return
            # Somebody else took the port between our look and the server's bind.
            if self._given_port or attempt == PORT_ATTEMPTS:
                break
            self._port = None
        message = f"PostgreSQL did not start, see {self.folder.log}\n{tail(self.folder.log)}"
        raise LocalServerError(message)

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop the server in PostgreSQL's sense of the mode; no effect if it does not run.

        Raises LocalServerError when it is not gone in time.
        """
        self._end(STOP_SIGNALS[mode])

    def kill(self) -> None:
        """SIGKILL the postmaster; returns when its children are gone too."""
        self._end(signal.SIGKILL)

    def restart(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop and start on the same port and data."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Stop the server, and remove the data if it is temporary. Idempotent."""
        self._keeper.close()
        self.pid = None

    def create_database(self, name: str) -> str:
        """Make a database unless it is there; gives its URL. The server must run."""
        try:
            self._run(
                "createdb",
                ["createdb", "-h", HOST, "-p", str(self.port), "-U", USER, "-T", "template0", name],
                timeout_s=START_TIMEOUT_S,
                environment={"PGPASSWORD": self.folder.password()},
            )
        except LocalServerError as error:
            if f'database "{name}" already exists' not in str(error):
                raise
        return self.dsn(name)

    def create_standby(self, data_dir: Path | None = None) -> LocalPostgres:
        """A streaming standby of this running server, with its own slot, started and connected.

        It has the same settings and password; `promote` makes it a primary. The caller closes it.
        """
        standby = LocalPostgres(data_dir, settings=self.settings)
        try:
            standby._copy_from(self)
            standby.start()
        except BaseException:
            standby.close()
            raise
        return standby

    def promote(self, timeout_s: float = 30.0) -> None:
        """Make a standby a primary; returns once it accepts writes."""
        self._run(
            "promote",
            ["pg_ctl", "promote", "-D", self.folder.data, "-t", str(int(timeout_s))],
            timeout_s=timeout_s + 5,
        )

    def __enter__(self) -> Self:
        """Start."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def _start_on(self, port: int) -> bool:
        options = [f"-c{name}={value}" for name, value in self.settings.items()]
        self.pid = self._keeper.start(
            "postgres",
            [programs_folder() / "postgres", "-D", self.folder.data, f"-p{port}", *options],
            log=self.folder.log,
            account=self.folder.account,
            stop_signal=signal.SIGINT,
        )
        deadline = time.monotonic() + self.start_timeout_s
        while time.monotonic() < deadline:
            if self.folder.accepts_connections(self.pid):
                return True
            if self._keeper.wait("postgres", POLL_S) is not None:
                return False
        self.kill()
        return False

    def _end(self, number: signal.Signals) -> None:
        self._keeper.signal("postgres", number)
        self._keeper.wait("postgres", STOP_TIMEOUT_S)
        if self._keeper.running("postgres"):
            message = f"PostgreSQL did not stop in {STOP_TIMEOUT_S:.0f} s\n{tail(self.folder.log)}"
            raise LocalServerError(message)
        self.pid = None

    def _initdb(self) -> None:
        self.folder.make_data()
        self._run(
            "initdb",
            [
                "initdb",
                *("-D", self.folder.data, "-U", USER, "-A", "scram-sha-256"),
                *("--pwfile", self.folder.password_file, "-E", "UTF8"),
                # Built in, so the same on every system; compares as bytes.
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
                *(["--no-sync"] if self.settings.get("fsync") == "off" else []),
            ],
            timeout_s=INITDB_TIMEOUT_S,
        )

    def _copy_from(self, primary: LocalPostgres) -> None:
        self.folder.make_data(primary.folder.password())
        self._run(
            "pg_basebackup",
            [
                *("pg_basebackup", "-h", HOST, "-p", str(primary.port), "-U", USER),
                *("-D", self.folder.data, "-X", "stream", "-c", "fast", "-R", "-C"),
                *("-S", f"standby_{secrets.token_hex(4)}"),
            ],
            timeout_s=BACKUP_TIMEOUT_S,
            environment={"PGPASSWORD": self.folder.password()},
        )

    def _run(
        self,
        name: str,
        argv: list[str | Path],
        *,
        timeout_s: float,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._keeper.run(
            name,
            [programs_folder() / argv[0], *argv[1:]],
            log=self.folder.log,
            timeout_s=timeout_s,
            environment={**CLEAN_ENVIRONMENT, **(environment or {})},
            account=self.folder.account,
        )
