"""Where local servers keep things, and as which operating system user they run.

Everything lies in one cache folder per user: downloads and unpacked programs by version, and
below ``run`` the temporary data of servers that run now.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from service.demo.local.keeper import Account, LocalServerError

NAME = "engagement-scoring"
UNPRIVILEGED_USER = "nobody"
NEW_FOR_S = 60.0  # a leash locks its folder well within this


def cache_folder() -> Path:
    """The folder for downloads and running servers, made if missing.

    A normal user's is the usual one (``XDG_CACHE_HOME`` is honoured). For root it has to be one
    that the unprivileged server user can enter, so a closed home is passed over for the
    machine's cache folder; no existing folder's mode is ever changed.
    """
    folder = platformdirs.user_cache_path(NAME)
    if os.geteuid() == 0 and not others_can_enter(folder):
        folder = platformdirs.site_cache_path(NAME)
    make_folder(folder)
    return folder


def data_folder() -> Path:
    """The folder for data that is kept from one demo to the next; by the rules of the cache."""
    folder = platformdirs.user_data_path(NAME)
    if os.geteuid() == 0 and not others_can_enter(folder):
        folder = platformdirs.site_state_path(NAME)
    make_folder(folder)
    return folder


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents so that every user can pass through the new ones."""
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    for part in reversed(missing):
        # Another start may be making the same folders.
        with contextlib.suppress(FileExistsError):
            part.mkdir()
            part.chmod(0o755)


def others_can_enter(folder: Path) -> bool:
    """Whether every existing folder on the way (and the folder) lets any user pass."""
    path = folder.resolve()
    return all(
        part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents) if part.exists()
    )


def server_account() -> Account | None:
    """The user for servers that refuse root; null when we are not root and run them ourselves.

    Raises LocalServerError when we are root and the system has no such user.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(UNPRIVILEGED_USER)
    except KeyError as error:
        message = (
            f"PostgreSQL does not run as root, and there is no user {UNPRIVILEGED_USER!r} on this "
            "machine to run it as: start this as a normal user, or set DATABASE_URL"
        )
        raise LocalServerError(message) from error
    return Account(entry.pw_uid, entry.pw_gid)


def temporary_folder(purpose: str) -> Path:
    """A new folder below the cache folder, to be handed to a Keeper, which removes it.

    Folders that a crash of the whole machine left behind (nobody holds their lock) go first.
    """
    parent = cache_folder() / "run"
    make_folder(parent)
    with locked(parent / "lock"):
        for old in parent.iterdir():
            if old.is_dir() and not in_use(old):
                shutil.rmtree(old, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{purpose}-", dir=parent))
        folder.chmod(0o755)
        (folder / "in-use").touch()
    return folder


def in_use(folder: Path) -> bool:
    """Whether a live leash holds the folder's lock, or it is too new to tell."""
    if time.time() - folder.stat().st_mtime < NEW_FOR_S:
        return True
    try:
        marker = folder.joinpath("in-use").open("rb")
    except FileNotFoundError:
        return False
    with marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, waiting for whoever has it; freed by any kind of end."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
