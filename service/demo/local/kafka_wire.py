"""Asks a broker for the cluster's members: a port that is open says little, this answer much."""

from __future__ import annotations

import socket
import struct

METADATA_KEY = 3
METADATA_VERSION = 4  # the plain (not "flexible") form that every Kafka 4 broker still answers
CORRELATION_ID = 1
ANSWER = ">iii"  # correlation id, throttle time, number of brokers; more follows
MAX_ANSWER_BYTES = 1 << 20


def brokers_known_to(host: str, port: int, timeout_s: float = 2.0) -> int:
    """How many brokers the broker at `host:port` (plaintext) lists; 0 when it does not answer."""
    client = b"probe"
    header = struct.pack(
        f">hhih{len(client)}s", METADATA_KEY, METADATA_VERSION, CORRELATION_ID, len(client), client
    )
    no_topics_no_creation = struct.pack(">i?", 0, False)
    request = header + no_topics_no_creation
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", _read(connection, 4))
            if not struct.calcsize(ANSWER) <= size <= MAX_ANSWER_BYTES:
                return 0
            _, _, brokers = struct.unpack_from(ANSWER, _read(connection, size))
    except OSError:
        return 0
    return int(brokers)


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            message = "the broker closed the connection"
            raise ConnectionError(message)
        data += part
    return data
