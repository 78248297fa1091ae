"""The floor under every latency: a blocking recv() loop that only says how many bytes have come."""

from __future__ import annotations

import socket
from typing import Any, Final

from klshm.shm import layout as lay
from klshm.shm.segment import Segment


__all__ = ["RECEIVED_WORD", "run_bare_recv"]

RECEIVED_WORD: Final = lay.B_COUNTERS
"""Word of worker 0's block that holds the bytes received since the handshake."""
_SUBSCRIBE: Final = b"GET / HTTP/1.1\r\nSec-WebSocket-Key: none\r\n\r\n"


def run_bare_recv(segment: Segment, port: int) -> None:
    """Receive for ever."""
    block: Any = memoryview(segment.block(segment.layout.partition_offset(0)).data)
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(_SUBSCRIBE)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += connection.recv(1)
    buffer, received = bytearray(1 << 18), 0
    while size := connection.recv_into(buffer):
        received += size
        block[RECEIVED_WORD] = received
