"""Free loopback ports that stay free while a server is down for a restart."""

from __future__ import annotations

import fcntl
import os
import random
import socket
from functools import cache

from service.demo.local.folders import cache_folder
from service.demo.local.keeper import LocalServerError

# Below the ranges that Linux (32768 up) and macOS (49152 up) hand out to outgoing connections:
# otherwise a client could sit on a stopped server's port when it wants to come back.
FIRST_PORT = 20000
LAST_PORT = 32000
ATTEMPTS = 200

# What this process has given away: a server that is still starting does not listen yet. Of other
# processes of this user the same is known by locks on the bytes of a file, one for each port.
_given: set[int] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now, another one at each call and in each process.

    The caller still has to cope with losing a race for it. Raises OSError when none is found.
    """
    source = random.SystemRandom()
    for _ in range(ATTEMPTS):
        port = source.randint(FIRST_PORT, LAST_PORT)
        if take(port, host):
            return port
    message = f"no free port on {host} between {FIRST_PORT} and {LAST_PORT}"
    raise OSError(message)


def take(port: int, host: str = "127.0.0.1") -> bool:
    """Whether the port was to be had: nobody listens on it, and from now on it is given away."""
    if port in _given or not is_free(port, host) or not _reserve(port):
        return False
    _given.add(port)
    return True


def _reserve(port: int) -> bool:
    """Keep a port from other processes for as long as this one runs; False: one of them has it."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):
        return False
    return True


@cache
def _reservations() -> int:
    # Opened once and never closed: that would give up all of the process's locks on the file.
    return os.open(cache_folder() / "ports.lock", os.O_RDWR | os.O_CREAT, 0o644)


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether nobody listens on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose old connections are still in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def require_free(port: int, host: str) -> None:
    """Raise LocalServerError when somebody listens on the port."""
    if not is_free(port, host):
        raise LocalServerError(f"port {port} of {host} is taken")
