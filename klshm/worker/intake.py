"""From the sockets to a batch of events: connections, subscriptions, decoding.

A worker's symbols are spread over as few connections as the exchange allows (1024 streams each).
An acknowledgement proves nothing: a stream counts as live when its first frame has come.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from klshm.config import ExchangeConfig
from klshm.core.events import STREAM_DOWN
from klshm.core.messages import EventBatch, FrameDecoder
from klshm.errors import BadMessage
from klshm.exchange.stream import StreamConnection, StreamState, market_stream_url
from klshm.shm.counters import Counters


__all__ = ["Intake", "stream_name"]

_log = logging.getLogger(__name__)

_STREAMS_PER_CONNECTION: Final = 1024
_STREAMS_PER_SYMBOL: Final = 2
_SYMBOLS_PER_CONNECTION: Final = _STREAMS_PER_CONNECTION // _STREAMS_PER_SYMBOL
_UNDECODABLE: Final = (ValueError, OverflowError, RecursionError)
"""What hostile frames make of a decoder: text that is no UTF-8, integers beyond 64 bits, bottomless nesting."""
_LOWER: Final = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


def stream_name(symbol: str) -> str:
    """Return a symbol as stream names spell it: only ASCII letters are lowered (EXCHANGE section 2.2)."""
    return symbol.translate(_LOWER)


class _Link:
    """One connection and the symbols it carries."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.slots: set[int] = set()
        self.connection: StreamConnection | None = None
        self.up = False
        self.frames = 0
        self.last_frame_ns = 0
        self.subscribed_ns = 0


class Intake:
    """All connections of one worker.

    Args:
        config: `[exchange]`.
        name: The worker's name, for logs.
        batch: Where events go.
        counters: The worker's counters.
        on_events: Called when the batch holds something new.
        now_ms: Returns the exchange's time, UTC ms.
    """

    def __init__(
        self,
        config: ExchangeConfig,
        name: str,
        batch: EventBatch,
        counters: Counters,
        on_events: Callable[[], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._config = config
        self._name = name
        self._batch = batch
        self._counters = counters
        self._on_events = on_events
        self._now_ms = now_ms
        self._slots: dict[str, int] = {}
        self._pairs: dict[tuple[str, str], int] = {}
        self._names: dict[int, tuple[str, tuple[str, str]]] = {}
        self._links: list[_Link] = []
        self._link_of: dict[int, _Link] = {}
        self._decoder = FrameDecoder(self._slots, self._pairs)
        self.messages = 0
        self.received_bytes = 0
        self.decode_errors = 0

    # Called by the worker

    @property
    def connections(self) -> int:
        """Connections that are up."""
        return sum(link.up for link in self._links)

    @property
    def symbols(self) -> int:
        """Symbols subscribed."""
        return len(self._names)

    @property
    def live(self) -> bool:
        """Whether every connection has shown a frame."""
        return bool(self._links) and all(link.frames > 0 for link in self._links)

    def add(self, slot: int, symbol: str, pair: str, contract: str) -> None:
        """Subscribe a symbol.

        Args:
            slot: Its local slot.
            symbol: Its name as the exchange spells it.
            pair: Its pair.
            contract: Its contract type, such as "PERPETUAL".
        """
        if slot in self._names:
            return
        self._names[slot] = (symbol, (pair, contract))
        self._slots[symbol] = slot
        self._pairs[pair, contract] = slot
        link = self._link_with_room()
        link.slots.add(slot)
        self._link_of[slot] = link
        if link.connection is None:
            link.connection = self._connect(link, self._streams(slot))
        else:
            link.connection.add(self._streams(slot))

    def remove(self, slot: int) -> None:
        """Unsubscribe a symbol."""
        if slot not in self._names:
            return
        link = self._link_of.pop(slot)
        link.slots.discard(slot)
        if link.connection is not None:
            link.connection.remove(self._streams(slot))
        symbol, pair = self._names.pop(slot)
        self._slots.pop(symbol, None)
        self._pairs.pop(pair, None)

    def start(self) -> None:
        """Connect what has not been connected yet; symbols added before share few connections."""
        for link in self._links:
            if link.connection is not None and link.last_frame_ns == 0:
                link.last_frame_ns = time.monotonic_ns()
                link.connection.start()

    def silent_links(self, after_s: float) -> list[int]:
        """Return the connections that acknowledged everything and have sent nothing for so long."""
        now_ns = time.monotonic_ns()
        return [
            link.number
            for link in self._links
            if link.up and link.subscribed_ns and now_ns - max(link.subscribed_ns, link.last_frame_ns) > after_s * 1e9
        ]

    def publish_counters(self) -> None:
        """Write the levels and totals of the intake."""
        counters = self._counters
        counters.set("messages_total", self.messages)
        counters.set("received_bytes_total", self.received_bytes)
        counters.set("decode_errors_total", self.decode_errors)
        counters.set("unknown_symbols_total", self._decoder.unknown_symbols)
        counters.set("connections", self.connections)
        counters.set("symbols", self.symbols)
        counters.set("subscriptions", self.symbols * _STREAMS_PER_SYMBOL)

    async def close(self) -> None:
        """Close all connections."""
        for link in self._links:
            if link.connection is not None:
                await link.connection.close()

    # Inside

    def _streams(self, slot: int) -> list[str]:
        symbol, (pair, contract) = self._names[slot]
        trades = f"{stream_name(symbol)}@{self._config.trade_stream}"
        if self._config.official_stream == "continuousKline":
            return [trades, f"{stream_name(pair)}_{contract.lower()}@continuousKline_1m"]
        return [trades, f"{stream_name(symbol)}@kline_1m"]

    def _link_with_room(self) -> _Link:
        for link in self._links:
            if len(link.slots) < _SYMBOLS_PER_CONNECTION:
                return link
        link = _Link(len(self._links))
        self._links.append(link)
        return link

    def _connect(self, link: _Link, streams: list[str]) -> StreamConnection:
        decode, batch, on_events = self._decoder.decode, self._batch, self._on_events

        def on_frame(payload: bytes) -> None:
            self.messages += 1
            self.received_bytes += len(payload)
            link.frames += 1
            link.last_frame_ns = time.monotonic_ns()
            try:
                decode(payload, batch)
            except (BadMessage, *_UNDECODABLE) as error:
                self.decode_errors += 1
                _log.warning("frame refused worker=%s error=%s", self._name, error)
            on_events()

        return StreamConnection(
            market_stream_url(self._config.ws_url),
            streams,
            on_frame,
            lambda state, reason: self._on_state(link, state, reason),
            name=f"{self._name} stream {link.number}",
            proxy=self._config.proxy,
            connect_timeout_s=self._config.connect_timeout_s,
            reconnect_max_s=self._config.reconnect_max_s,
        )

    def _on_state(self, link: _Link, state: StreamState, reason: str) -> None:
        if state is StreamState.CONNECTED:
            link.up = True
            self._counters.add("connects_total")
            _log.info("stream connected worker=%s stream=%d symbols=%d", self._name, link.number, len(link.slots))
        elif state is StreamState.SUBSCRIBED:
            link.subscribed_ns = time.monotonic_ns()
        elif state is StreamState.DISCONNECTED:
            link.up = False
            link.subscribed_ns = 0
            self._counters.add("disconnects_total")
            _log.warning("stream lost worker=%s stream=%d reason=%r", self._name, link.number, reason)
            self._doubt(link)
        else:
            _log.warning(
                "stream unreachable worker=%s stream=%d address=%s reason=%r remedy=%r",
                *(self._name, link.number, self._config.ws_url, reason),
                "check the network, set exchange.proxy, or try --demo",
            )

    def _doubt(self, link: _Link) -> None:
        """Nothing that was sent after the last frame is known to have come."""
        since = self._now_ms() - (time.monotonic_ns() - link.last_frame_ns) // 1_000_000
        for slot in link.slots:
            self._batch.append((STREAM_DOWN, slot, since, *[0] * 19))
        self._on_events()
