"""WebSocket routes and the life of a connection: handshake, control messages, pings, the 24-hour end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from aiohttp import WSMsgType, web

from .clock import SimClock
from .hub import Connection, Hub, websocket_frame


__all__ = ["Gate"]

_PING_MS = 180_000
_PONG_DEADLINE_MS = 600_000
_AGE_MS = 86_400_000


class Gate:
    """Accept WebSocket clients.

    Args:
        time_factor: scales the ping interval, the pong deadline and the greatest age.
        refusal: tells the status by which handshakes are refused at a time, a fault.
    """

    def __init__(
        self, hub: Hub, clock: SimClock, time_factor: float = 1.0, refusal: Callable[[int], int | None] = lambda _: None
    ) -> None:
        self._refusal = refusal
        self._hub = hub
        self._clock = clock
        self._ping_ms = max(1, int(_PING_MS * time_factor))
        self._pong_deadline_ms = max(1, int(_PONG_DEADLINE_MS * time_factor))
        self._age_ms = max(1, int(_AGE_MS * time_factor))

    def add_routes(self, app: web.Application) -> None:
        """Register the routed and the unrouted paths."""
        for prefix in ("", "/market", "/public", "/private"):
            app.router.add_get(f"{prefix}/ws", self._handle)
            app.router.add_get(f"{prefix}/ws/{{tail:.*}}", self._handle)
            app.router.add_get(f"{prefix}/stream", self._handle)

    def watch(self) -> None:
        """Send due pings; drop connections that are too old or did not answer. Called about once a second."""
        # A step of the exchange's clock makes no connection older.
        now_ms = self._clock.uptime_ms()
        for connection in list(self._hub.connections.values()):
            waiting_ms = connection.awaited_pong_ms
            if now_ms - connection.opened_ms >= self._age_ms:
                connection.close(1001, "")
            elif waiting_ms is not None and now_ms - waiting_ms >= self._pong_deadline_ms:
                connection.close(1008, "Pong timeout")
            elif now_ms - connection.last_ping_ms >= self._ping_ms:
                connection.last_ping_ms = now_ms
                if waiting_ms is None:
                    connection.awaited_pong_ms = now_ms
                connection.ping_payload = str(self._clock.now_ms()).encode()
                connection.put(websocket_frame(connection.ping_payload, 9))

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        refused = self._refusal(self._clock.now_ms())
        if refused is not None:
            return web.Response(status=refused, text="Service Unavailable.")
        socket = web.WebSocketResponse(
            autoping=False, autoclose=True, compress=False, max_msg_size=1 << 20, timeout=1.0
        )
        if not socket.can_prepare(request).ok:
            return web.Response(status=400, text="expected a WebSocket handshake")
        await socket.prepare(request)
        route, kind = _parse(request.path)
        transport = cast("asyncio.Transport", request.transport)
        connection = self._hub.add(route, kind == "stream", transport, self._clock.uptime_ms())
        try:
            self._from_url(connection, request, kind)
            async for message in socket:
                # What comes after our close frame is of no interest, but the client's own must be awaited.
                if not connection.closing:
                    self._on_message(connection, message.type, message.data)
        finally:
            self._hub.remove(connection)
        return socket

    def _from_url(self, connection: Connection, request: web.Request, kind: str) -> None:
        names = request.query.get("streams", "") if kind == "stream" else request.match_info.get("tail", "")
        # ccxt adds a number to the path; whatever is not a stream name is ignored.
        wanted = [name for name in names.split("/") if "@" in name or name.startswith("!")]
        fresh, full = connection.session.subscribe(wanted)
        if full:
            connection.close(1008, "Invalid request")
        else:
            self._hub.subscribe(connection, fresh)

    def _on_message(self, connection: Connection, kind: WSMsgType, data: object) -> None:
        if kind == WSMsgType.PONG:
            if bytes(cast("bytes", data)) == connection.ping_payload:
                connection.awaited_pong_ms = None
        elif not connection.bucket.take(self._clock.uptime_ms()):
            connection.close(1008, "Too many requests")
        elif kind == WSMsgType.PING:
            connection.put(websocket_frame(bytes(cast("bytes", data)), 10))
        elif kind == WSMsgType.BINARY:
            self._control(connection, bytes(cast("bytes", data)).decode(errors="replace"))
        elif kind == WSMsgType.TEXT:
            self._control(connection, str(data))

    def _control(self, connection: Connection, text: str) -> None:
        reply, fresh, dropped, close = connection.session.handle(text)
        connection.put(websocket_frame(reply))
        self._hub.subscribe(connection, fresh)
        self._hub.unsubscribe(connection, dropped)
        if close is not None:
            connection.close(close.code, close.reason)


def _parse(path: str) -> tuple[str, str]:
    parts = path.strip("/").split("/")
    route = parts[0] if parts[0] in ("market", "public", "private") else ""
    kind = parts[1] if route else parts[0]
    return route, kind
