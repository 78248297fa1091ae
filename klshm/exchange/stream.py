"""One WebSocket connection to the exchange's combined streams, kept up for ever.

It connects, subscribes at the pace the exchange allows, answers pings, hands every data frame
to its owner as it came, and connects again with a back-off when the connection breaks. It
decodes nothing and has no opinion on what a stream means: whether one is live, silent or due
for a hand-over is its owner's business.

States, in the order in which the owner hears of them::

    UNREACHABLE*  ->  CONNECTED  ->  SUBSCRIBED*  ->  DISCONNECTED  ->  UNREACHABLE* ...
    each failed       handshake      everything       with the
    attempt           done           wanted is        reason
                                     acknowledged

Between CONNECTED and DISCONNECTED, and only there, frames come. Runs on asyncio and uvloop.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Final

import picows
from python_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError

from klshm.exchange.backoff import Backoff
from klshm.exchange.proxy import proxy_for
from klshm.exchange.subscriptions import Subscriptions


__all__ = ["StreamConnection", "StreamState", "market_stream_url"]

_log = logging.getLogger(__name__)

MAX_FRAME_BYTES: Final = 8 * 1024 * 1024
"""The largest frame seen is !ticker@arr, about 0.3 MB."""

_CONTROL_BYTES: Final = 125
_FIRST_PAUSE_S: Final = 0.5
_STABLE_S: Final = 10.0
_REPLY_TIMEOUT_S: Final = 10.0
_PING_IDLE_S: Final = 20.0
_PONG_TIMEOUT_S: Final = 10.0
_CLOSE_TIMEOUT_S: Final = 1.0

_CONNECT_ERRORS: Final = (
    OSError,
    TimeoutError,
    ssl.SSLError,
    picows.WSError,
    ProxyError,
    ProxyConnectionError,
    ProxyTimeoutError,
)


class StreamState(Enum):
    """What an owner is told about its connection."""

    UNREACHABLE = "unreachable"
    CONNECTED = "connected"
    SUBSCRIBED = "subscribed"
    DISCONNECTED = "disconnected"


def market_stream_url(ws_url: str) -> str:
    """Return the address of the combined market streams under a base address.

    Only the /market route carries trades and klines; the address without a route acknowledges
    every subscription and then sends nothing, for ever.
    """
    return f"{ws_url.rstrip('/')}/market/stream"


class StreamConnection:
    """Keeps one connection up and its streams subscribed, from `start` to `close`.

    Args:
        url: Full address, such as `market_stream_url(config.exchange.ws_url)`.
        streams: Names to subscribe at first, at most 1024, such as "btcusdt@aggTrade".
        on_frame: Called with the payload of each data frame; it must not raise.
        on_state: Called with each change of state and, where there is one, its reason.
        name: Name for logs, such as "worker 0 stream a".
        proxy: `exchange.proxy`; empty: the environment's, or none.
        connect_timeout_s: Seconds until an attempt counts as failed.
        reconnect_max_s: Longest pause between two attempts, seconds.
        ssl_context: Certificates to trust; None: the system's.
    """

    def __init__(
        self,
        url: str,
        streams: Iterable[str],
        on_frame: Callable[[bytes], None],
        on_state: Callable[[StreamState, str], None],
        *,
        name: str = "stream",
        proxy: str = "",
        connect_timeout_s: float = 10.0,
        reconnect_max_s: float = 30.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.url = url
        self.name = name
        self.subscriptions = Subscriptions(streams)
        self.on_frame = on_frame
        self._on_state = on_state
        self._proxy = proxy_for(url, proxy)
        self._connect_timeout_s = connect_timeout_s
        self._ssl_context = ssl_context
        self._backoff = Backoff(_FIRST_PAUSE_S, reconnect_max_s)
        self._changed = asyncio.Event()
        self._listener: _Listener | None = None
        self._task: asyncio.Task[None] | None = None

    # Called by the owner

    @property
    def connected(self) -> bool:
        """Whether frames can come."""
        return self._listener is not None

    def start(self) -> None:
        """Begin to connect; call it once, inside the running loop."""
        self._task = asyncio.create_task(self._run(), name=f"klshm {self.name}")

    def add(self, names: Iterable[str]) -> None:
        """Subscribe these streams too.

        Raises:
            ValueError: If the connection would carry more than 1024.
        """
        self.subscriptions.add(names)
        self._changed.set()

    def remove(self, names: Iterable[str]) -> None:
        """Unsubscribe these streams; frames already under way may still come."""
        self.subscriptions.remove(names)
        self._changed.set()

    def reconnect(self, reason: str) -> None:
        """Break the connection, if there is one, and make a new one."""
        if self._listener is not None:
            self._listener.disconnect(reason)

    async def close(self) -> None:
        """Close for good; the owner hears nothing more once it has returned."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._listener is not None:
            listener, self._listener = self._listener, None
            listener.leave()
            await asyncio.wait([listener.closed], timeout=_CLOSE_TIMEOUT_S)
            listener.abort()

    # Called by the listener

    def reply_taken(self, payload: bytes) -> bool:
        """Take a frame if it is the reply to a control message."""
        subscriptions = self.subscriptions
        refused = len(subscriptions.refused)
        if not subscriptions.take_reply(payload):
            return False
        for code, message in subscriptions.refused[refused:]:
            _log.warning("subscription refused stream=%s code=%d message=%r", self.name, code, message)
        self._changed.set()
        if subscriptions.settled:
            self._on_state(StreamState.SUBSCRIBED, "")
        return True

    # The life of the connection

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                listener = await self._connect()
            except _CONNECT_ERRORS as error:
                self._on_state(StreamState.UNREACHABLE, _describe(error, self._proxy))
            else:
                began_s = loop.time()
                self._listener = listener
                self.subscriptions.restart()
                self._on_state(StreamState.CONNECTED, "")
                reason = await self._serve(listener)
                self._listener = None
                self._on_state(StreamState.DISCONNECTED, reason)
                if loop.time() - began_s >= _STABLE_S:
                    self._backoff.reset()
            await asyncio.sleep(self._backoff.next_s())

    async def _connect(self) -> _Listener:
        listener = _Listener(self)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await picows.ws_connect(
                    lambda: listener,
                    self.url,
                    ssl_context=self._ssl_context,
                    proxy=self._proxy,
                    websocket_handshake_timeout=self._connect_timeout_s,
                    enable_auto_ping=True,
                    auto_ping_idle_timeout=_PING_IDLE_S,
                    auto_ping_reply_timeout=_PONG_TIMEOUT_S,
                    disconnect_on_exception=False,
                    max_frame_size=MAX_FRAME_BYTES,
                    max_redirects=0,
                    logger_name=_picows_log,
                )
        except BaseException:
            listener.abort()  # the handshake may still end after the attempt was given up
            raise
        return listener

    async def _serve(self, listener: _Listener) -> str:
        sender = asyncio.create_task(self._send_requests(listener))
        try:
            return await listener.wait_closed()
        finally:
            sender.cancel()

    async def _send_requests(self, listener: _Listener) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            now_s = loop.time()
            request = self.subscriptions.next_request(now_s)
            if request is not None:
                listener.send(request)
            asked_s = self.subscriptions.oldest_unanswered_s()
            if asked_s is not None and now_s >= asked_s + _REPLY_TIMEOUT_S:
                listener.disconnect(f"no reply to a subscription within {_REPLY_TIMEOUT_S:g} s")
                return
            next_s = self.subscriptions.next_at_s()
            due = [t for t in (next_s, None if asked_s is None else asked_s + _REPLY_TIMEOUT_S) if t is not None]
            timer = loop.call_at(min(due), self._changed.set) if due else None
            await self._changed.wait()
            if timer is not None:
                timer.cancel()


class _Listener(picows.WSListener):
    """The receiving end of one connection."""

    def __init__(self, owner: StreamConnection) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._owner: StreamConnection | None = owner
        self._subscriptions = owner.subscriptions
        self._on_frame = owner.on_frame
        self._transport: picows.WSTransport | None = None
        self._parts = bytearray()
        self._reason = ""
        self._given_up = False

    # Called by the connection

    async def wait_closed(self) -> str:
        """Wait until the connection is gone and return why."""
        await asyncio.shield(self.closed)
        if self._transport is not None:
            try:
                await self._transport.wait_disconnected()
            except Exception as error:  # whatever made picows give up; it becomes the reason
                self._reason = self._reason or str(error) or type(error).__name__
            sent = self._transport.close_handshake and self._transport.close_handshake.sent
            if sent and not self._reason:
                self._reason = f"closed here: {sent.reason}"
        return self._reason or "the connection was lost without a close frame"

    def send(self, message: bytes) -> None:
        """Send a text frame."""
        if self._transport is not None:
            self._transport.send(picows.WSMsgType.TEXT, message)

    def disconnect(self, reason: str) -> None:
        """Break the connection; the owner hears of it with this reason."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    def leave(self) -> None:
        """Say good-bye to the exchange, and hand over nothing more."""
        self._owner = None
        if self._transport is not None:
            self._transport.send_close(picows.WSCloseCode.OK)
            self._transport.disconnect()

    def abort(self) -> None:
        """Drop the connection now, or as soon as it exists."""
        self._owner = None
        self._given_up = True
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    # Called by picows

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport
        if self._given_up:
            transport.disconnect(graceful=False)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        # Control frames carry at most 125 bytes, so a longer whole frame is data: asking for
        # its type would cost more than all else here.
        if _CONTROL_BYTES < frame.payload_size <= MAX_FRAME_BYTES and frame.fin and not self._parts:
            if self._owner is not None and not self._subscriptions.unanswered:
                self._on_frame(frame.get_payload_as_bytes())
            else:
                self._deliver(frame.get_payload_as_bytes())
        else:
            self._on_other_frame(transport, frame)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def _deliver(self, payload: bytes) -> None:
        owner = self._owner
        if owner is None or (self._subscriptions.unanswered and owner.reply_taken(payload)):
            return
        self._on_frame(payload)

    def _on_other_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        kind = frame.msg_type
        if kind is picows.WSMsgType.CLOSE:
            if not self._reason and not transport.is_close_frame_sent:
                text = frame.get_close_reason() or "no reason given"
                self._reason = f"closed by the exchange: {int(frame.get_close_code().value)} {text}"
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif kind in (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION):
            self._collect(frame)

    def _collect(self, frame: picows.WSFrame) -> None:
        self._parts += frame.get_payload_as_bytes()
        if len(self._parts) > MAX_FRAME_BYTES:
            self._parts.clear()
            self.disconnect(f"a message exceeds {MAX_FRAME_BYTES} bytes")
        elif frame.fin:
            payload = bytes(self._parts)
            self._parts.clear()
            self._deliver(payload)


# A logger of our own, in no registry: picows would say every connect and disconnect again.
_picows_log = logging.Logger(f"{__name__}.picows", logging.WARNING)
_picows_log.parent = _log


def _describe(error: BaseException, proxy: str | None) -> str:
    if isinstance(error, TimeoutError):
        text = "no answer in time"
    elif isinstance(error, picows.WSInvalidStatusError) and error.response is not None:
        text = f"the handshake was answered with HTTP {int(error.response.status)}"
    else:
        text = str(error) or type(error).__name__
    return f"{text} (through the proxy)" if proxy else text
