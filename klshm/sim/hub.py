"""Connections and who gets what: each payload is serialised once per event and queued as ready WebSocket frames.

Open loop: nothing a client does slows the market. A client that does not read is dropped when its queue passes a limit.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

from .events import AggEvent, ContractEvent, Event, KlineEvent, RawEvent
from .frames import agg_frame, continuous_frame, contract_frame, kline_frame, trade_frame
from .protocol import Session, TokenBucket, route_serves


__all__ = ["QUEUE_LIMIT_BYTES", "Connection", "Hub", "websocket_frame"]

QUEUE_LIMIT_BYTES = 64 << 20
# What may lie in the socket's own buffer before frames wait in the queue.
_BUFFER_BYTES = 1 << 20
# How long a client may take to answer a close frame.
_LINGER_S = 1.0


def websocket_frame(payload: bytes, opcode: int = 1) -> bytes:
    """Return an unmasked, unfragmented server frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65_536:
        return struct.pack("!BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, size) + payload


class Connection:
    """One client.

    Args:
        route: `market`, `public`, `private` or the empty string.
        transport: where frames go.
        opened_ms: when the handshake was, by the uptime of the simulator.
    """

    def __init__(self, number: int, route: str, combined: bool, transport: asyncio.Transport, opened_ms: int) -> None:
        self.number = number
        self.route = route
        self.session = Session(combined)
        self.bucket = TokenBucket()
        self.opened_ms = opened_ms
        self.last_ping_ms = opened_ms
        self.ping_payload = b""
        self.awaited_pong_ms: int | None = None
        self.frames_sent = 0
        self.closing = False
        self._transport = transport
        self._queue: list[bytes] = []
        self._queued_bytes = 0

    def put(self, frame: bytes) -> None:
        """Queue a ready frame."""
        self._queue.append(frame)
        self._queued_bytes += len(frame)
        self.frames_sent += 1

    def flush(self) -> bool:
        """Write what is queued unless the socket is full; False when the client is too slow to keep."""
        if self._queue and not self._is_gone() and self._transport.get_write_buffer_size() < _BUFFER_BYTES:
            self._transport.write(b"".join(self._queue))
            self._queue.clear()
            self._queued_bytes = 0
        return self._queued_bytes < QUEUE_LIMIT_BYTES

    def close(self, code: int, reason: str) -> None:
        """Send a close frame behind everything queued; the socket ends when the client has answered, or soon."""
        if not self._is_gone():
            self.put(websocket_frame(struct.pack("!H", code) + reason.encode(), 8))
            self._transport.write(b"".join(self._queue))
            self._queue.clear()
            self.closing = True
            # Closed at once, with messages unread, the socket would be reset and the client might lose the close frame.
            asyncio.get_running_loop().call_later(_LINGER_S, self._transport.abort)

    def abort(self) -> None:
        """Drop the socket without a word."""
        self.closing = True
        self._transport.abort()

    def _is_gone(self) -> bool:
        return self.closing or self._transport.is_closing()


class Hub:
    """All connections and the map from stream name to subscribers.

    Args:
        activate: called with a stream name when it gets its first subscriber.
        spoil: may damage the text of a frame of this kind of stream, a fault.
    """

    def __init__(
        self, activate: Callable[[str], None], spoil: Callable[[str, str], str] = lambda _, text: text
    ) -> None:
        self.connections: dict[int, Connection] = {}
        self.handshakes = 0
        self._activate = activate
        self._spoil = spoil
        self._subscribers: dict[str, dict[int, Connection]] = {}

    def add(self, route: str, combined: bool, transport: asyncio.Transport, now_ms: int) -> Connection:
        """Register a connection."""
        self.handshakes += 1
        connection = Connection(self.handshakes, route, combined, transport, now_ms)
        self.connections[connection.number] = connection
        return connection

    def remove(self, connection: Connection) -> None:
        """Forget a connection and its subscriptions."""
        self.connections.pop(connection.number, None)
        self.unsubscribe(connection, list(connection.session.streams))

    def subscribe(self, connection: Connection, names: list[str]) -> None:
        """Deliver these streams from now on, as far as the route serves them."""
        for name in names:
            if not route_serves(connection.route, name):
                continue
            subscribers = self._subscribers.get(name)
            if subscribers is None:
                subscribers = self._subscribers[name] = {}
                self._activate(name)
            subscribers[connection.number] = connection

    def unsubscribe(self, connection: Connection, names: list[str]) -> None:
        """Deliver these streams no longer."""
        for name in names:
            subscribers = self._subscribers.get(name)
            if subscribers is not None and subscribers.pop(connection.number, None) is not None and not subscribers:
                del self._subscribers[name]

    def wanted(self, name: str) -> bool:
        """Say whether anybody gets this stream."""
        return name in self._subscribers

    def publish(self, event: Event) -> None:
        """Queue one event for its subscribers."""
        if isinstance(event, KlineEvent):
            name = f"{event.instrument.lower}@kline_{event.interval}"
            if name in self._subscribers:
                self.send(name, self._spoil("kline", kline_frame(event)))
            spec = event.instrument.spec
            name = f"{spec.pair.lower()}_{spec.contract_type.lower()}@continuousKline_{event.interval}"
            if name in self._subscribers:
                self.send(name, self._spoil("kline", continuous_frame(event)))
        elif isinstance(event, AggEvent):
            name = f"{event.instrument.lower}@aggTrade"
            if name in self._subscribers:
                self.send(name, self._spoil("aggTrade", agg_frame(event)))
        elif isinstance(event, RawEvent):
            if event.stream in self._subscribers:
                self.send(event.stream, event.text)
        elif isinstance(event, ContractEvent):
            if "!contractInfo" in self._subscribers:
                self.send("!contractInfo", contract_frame(event))
        elif f"{event.instrument.lower}@trade" in self._subscribers:
            self.send(f"{event.instrument.lower}@trade", trade_frame(event))

    def send(self, name: str, text: str) -> None:
        """Queue one payload for the subscribers of a stream."""
        subscribers = self._subscribers.get(name)
        if not subscribers:
            return
        raw = combined = b""
        for connection in subscribers.values():
            if connection.session.combined:
                if not combined:
                    combined = websocket_frame(f'{{"stream":"{name}","data":{text}}}'.encode())
                connection.put(combined)
            else:
                if not raw:
                    raw = websocket_frame(text.encode())
                connection.put(raw)

    def flush(self) -> None:
        """Write all queues; drop clients that are too slow."""
        for connection in list(self.connections.values()):
            if not connection.flush():
                connection.abort()
