"""From the sockets to a batch of events: connections, subscriptions, the frames of one turn.

A worker's symbols are spread over as few links as the exchange allows (1024 streams each); a link
replaces its connection without a gap (`klshm.worker.link`).
An acknowledgement proves nothing: a stream counts as live when its first frame has come.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from klshm.config import ExchangeConfig
from klshm.core.events import STREAM_DOWN
from klshm.core.messages import EventBatch
from klshm.core.reader import FrameReader
from klshm.exchange.models import stream_symbol
from klshm.exchange.stream import StreamConnection, StreamState, market_stream_url
from klshm.shm.counters import Counters
from klshm.worker.link import Link


__all__ = ["Intake"]

_log = logging.getLogger(__name__)

_STREAMS_PER_CONNECTION: Final = 1024
_STREAMS_PER_SYMBOL: Final = 2
_SYMBOLS_PER_CONNECTION: Final = _STREAMS_PER_CONNECTION // _STREAMS_PER_SYMBOL
_REPLACE_SILENT_S: Final = 60.0
_EVENT_COUNTERS: Final = {
    "connect": "connects_total",
    "disconnect": "disconnects_total",
    "rotation": "rotations_total",
}


class Intake:
    """All connections of one worker.

    Args:
        config: `[exchange]`.
        name: The worker's name, for logs.
        batch: Where events go.
        counters: The worker's counters.
        on_events: Called when something new has come; `read` then puts it into the batch.
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
        self._links: list[Link] = []
        self._link_of: dict[int, Link] = {}
        self._reader = FrameReader(self._slots, self._pairs)
        self._frames: list[bytes] = []
        self.messages = 0
        self.received_bytes = 0
        self.decode_errors = 0

    # Called by the worker

    @property
    def connections(self) -> int:
        """Connections that are up."""
        return sum(link.connections for link in self._links)

    @property
    def symbols(self) -> int:
        """Symbols subscribed."""
        return len(self._names)

    @property
    def live(self) -> bool:
        """Whether every connection has shown a frame."""
        return bool(self._links) and all(link.shown for link in self._links)

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
        self.read()
        self._names[slot] = (symbol, (pair, contract))
        self._slots[symbol] = slot
        self._pairs[pair, contract] = slot
        self._reader.learn()
        link = self._link_with_room()
        link.slots.add(slot)
        self._link_of[slot] = link
        link.add(self._streams(slot))

    def remove(self, slot: int) -> None:
        """Unsubscribe a symbol."""
        if slot not in self._names:
            return
        self.read()
        link = self._link_of.pop(slot)
        link.slots.discard(slot)
        link.remove(self._streams(slot))
        symbol, pair = self._names.pop(slot)
        self._slots.pop(symbol, None)
        self._pairs.pop(pair, None)
        self._reader.learn()

    def read(self) -> None:
        """Put the events of all frames that have come into the batch."""
        if not self._frames:
            return
        frames, self._frames = self._frames, []
        self.messages += len(frames)
        self.received_bytes += sum(map(len, frames))
        for error in self._reader.read(frames, self._batch):
            self.decode_errors += 1
            _log.warning("frame refused worker=%s error=%s", self._name, error)

    def start(self) -> None:
        """Connect what has not been connected yet; symbols added before share few connections."""
        for link in self._links:
            link.start()

    def check(self) -> None:
        """Replace connections that are due for it; call it several times a second."""
        for link in self._links:
            link.check()

    def silent_links(self, after_s: float) -> list[int]:
        """Return the connections that acknowledged everything and have sent nothing for so long."""
        return [link.number for link in self._links if link.silent_s() > after_s]

    def publish_counters(self) -> None:
        """Write the levels and totals of the intake."""
        counters = self._counters
        counters.set("messages_total", self.messages)
        counters.set("received_bytes_total", self.received_bytes)
        counters.set("decode_errors_total", self.decode_errors)
        counters.set("unknown_symbols_total", self._reader.unknown_symbols)
        counters.set("connections", self.connections)
        counters.set("symbols", self.symbols)
        counters.set("subscriptions", self.symbols * _STREAMS_PER_SYMBOL)

    async def close(self) -> None:
        """Close all connections."""
        for link in self._links:
            await link.close()

    # Inside

    def _streams(self, slot: int) -> list[str]:
        symbol, (pair, contract) = self._names[slot]
        trades = f"{stream_symbol(symbol)}@{self._config.trade_stream}"
        if self._config.official_stream == "continuousKline":
            return [trades, f"{stream_symbol(pair)}_{contract.lower()}@continuousKline_1m"]
        return [trades, f"{stream_symbol(symbol)}@kline_1m"]

    def _link_with_room(self) -> Link:
        for link in self._links:
            if len(link.slots) < _SYMBOLS_PER_CONNECTION:
                return link
        number = len(self._links)
        link = Link(
            number,
            lambda streams, on_frame, on_state: self._connect(number, streams, on_frame, on_state),
            self._take,
            lambda since_ns: self._doubt(number, since_ns),
            lambda event: self._counters.add(_EVENT_COUNTERS[event]),
            address=self._config.ws_url,
            rotate_after_s=self._config.rotate_after_s,
            silent_after_s=_REPLACE_SILENT_S,
        )
        self._links.append(link)
        return link

    def _connect(
        self,
        number: int,
        streams: list[str],
        on_frame: Callable[[bytes], None],
        on_state: Callable[[StreamState, str], None],
    ) -> StreamConnection:
        return StreamConnection(
            market_stream_url(self._config.ws_url),
            streams,
            on_frame,
            on_state,
            name=f"{self._name} stream {number}",
            proxy=self._config.proxy,
            connect_timeout_s=self._config.connect_timeout_s,
            reconnect_max_s=self._config.reconnect_max_s,
        )

    def _take(self, payload: bytes) -> None:
        if not self._frames:
            self._on_events()
        self._frames.append(payload)

    def _doubt(self, number: int, last_frame_ns: int) -> None:
        """Nothing that was sent after the last frame is known to have come."""
        self.read()
        since = self._now_ms() - (time.monotonic_ns() - last_frame_ns) // 1_000_000
        for slot in self._links[number].slots:
            self._batch.append((STREAM_DOWN, slot, since, *[0] * 19))
        self._on_events()
