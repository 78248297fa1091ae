"""The exchange's side of a WebSocket, just enough of it: shake hands, acknowledge, send framed bytes."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
from collections.abc import Callable
from typing import Final


__all__ = ["accept_subscriber", "framed"]

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def framed(payload: bytes) -> bytes:
    """Return a payload as one WebSocket text frame of a server."""
    if len(payload) < 126:
        return struct.pack(">BB", 0x81, len(payload)) + payload
    return struct.pack(">BBH", 0x81, 126, len(payload)) + payload


def accept_subscriber(listener: socket.socket, is_all: Callable[[list[str]], bool]) -> tuple[socket.socket, list[str]]:
    """Accept a connection, shake hands and acknowledge subscriptions.

    Args:
        listener: Where it comes in.
        is_all: Tells whether the streams asked for so far are all.

    Returns:
        The connection, blocking and without delay, and the names of the streams.

    Raises:
        ConnectionError: If the other side goes away.
    """
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _shake_hands(connection)
    subscribed: list[str] = []
    while not is_all(subscribed):
        opcode, payload = _read_frame(connection)
        if opcode == 1:
            message = json.loads(payload)
            subscribed += message.get("params", [])
            connection.sendall(framed(json.dumps({"result": None, "id": message["id"]}).encode()))
    return connection, subscribed


def _shake_hands(connection: socket.socket) -> None:
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(4096)
    lines = [line.split(b":", 1) for line in request.split(b"\r\n")[1:] if line]
    headers = {name.lower(): value.strip() for name, value in lines}
    accept = base64.b64encode(hashlib.sha1(headers[b"sec-websocket-key"] + _GUID).digest())
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def _read_frame(connection: socket.socket) -> tuple[int, bytes]:
    head = _read(connection, 2)
    length = head[1] & 127
    if length == 126:
        (length,) = struct.unpack(">H", _read(connection, 2))
    mask = _read(connection, 4)
    data = _read(connection, length)
    return head[0] & 15, bytes(byte ^ mask[index & 3] for index, byte in enumerate(data))


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError(f"closed by the other side after {len(data)} of {size} bytes")
        data += part
    return data
