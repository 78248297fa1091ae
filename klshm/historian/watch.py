"""Listens to the whole market on a connection of its own: who has fallen silent, and who is new.

Both streams of a symbol can be mute at once, acknowledged and silent for ever; then nothing that
its worker receives can tell. Rows of `!ticker@arr` carry the last trade id of a symbol: if that
is ahead of the worker's live bar for two seconds while the bar does not move, the worker is told
to doubt its streams (BARS section 5). Doubt proves nothing: it flags the bar `partial` and brings
the exchange's own rows. `!contractInfo` announces listings, and is answered by asking for them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from klshm.config import ExchangeConfig
from klshm.errors import RowBusy
from klshm.exchange.stream import StreamConnection, StreamState, market_stream_url
from klshm.historian.health import Health
from klshm.historian.inbox import Outlet, command
from klshm.historian.symbols import Entry, SymbolBook
from klshm.role import Role
from klshm.shm import layout as lay
from klshm.shm.segment import Segment
from klshm.shm.view import PartitionView


__all__ = ["MarketWatch", "Mutes"]

_log = logging.getLogger(__name__)

_STREAMS: Final = ("!ticker@arr", "!contractInfo")
_LOOK_S: Final = 0.5
_MUTE_MS: Final = 2_000
_JOIN_MS: Final = 5_000
"""A symbol that was added so recently may not be subscribed yet."""
_REFRESH_S: Final = 1.0
_REPEAT_S: Final = 60.0
_USDM: Final = 1
"""`st` of a row: 1 for USD-M; the stream carries COIN-M contracts (2) too."""


class _Row(msgspec.Struct, gc=False):
    symbol: str = msgspec.field(name="s")
    last_id: int = msgspec.field(name="L")
    market: int = msgspec.field(name="st", default=_USDM)


class _Frame(msgspec.Struct, gc=False):
    stream: str
    data: msgspec.Raw


_frame = msgspec.json.Decoder(_Frame)
_rows = msgspec.json.Decoder(list[_Row])


@dataclass
class _Standing:
    """How one symbol's live bar stands against what the exchange says."""

    added_ms: int
    told_id: int = -1
    """Last trade id the exchange told since the symbol was added."""
    seen_id: int = -1
    """Last trade id of the live bar."""
    moved_ms: int = 0
    """When the bar last moved, or first fell behind."""
    doubted: bool = False


class Mutes:
    """Finds symbols whose streams are mute; pure but for the clock passed in."""

    def __init__(self) -> None:
        self._standings: dict[int, _Standing] = {}

    def tell(self, slot: int, last_id: int, now_ms: int) -> None:
        """Take the exchange's word for the last trade id of a symbol."""
        standing = self._standings.setdefault(slot, _Standing(now_ms))
        if now_ms - standing.added_ms >= _JOIN_MS:
            standing.told_id = max(standing.told_id, last_id)

    def look(self, slot: int, seen_id: int, now_ms: int) -> int | None:
        """Compare with a live bar's last trade id.

        Args:
            slot: The symbol's slot.
            seen_id: Last trade id of its live bar, -1 if it is unknown.
            now_ms: Exchange time, UTC ms.

        Returns:
            Since when the symbol's streams are in doubt, UTC ms, if that is found out now.
        """
        standing = self._standings.setdefault(slot, _Standing(now_ms))
        if seen_id != standing.seen_id or standing.told_id <= seen_id:
            standing.seen_id, standing.moved_ms, standing.doubted = seen_id, now_ms, False
        elif not standing.doubted and now_ms - standing.moved_ms > _MUTE_MS:
            standing.doubted = True
            return standing.moved_ms
        return None

    def forget(self, slot: int) -> None:
        """Drop a symbol that is not carried any more."""
        self._standings.pop(slot, None)

    @property
    def doubted(self) -> int:
        """Symbols that are in doubt."""
        return sum(standing.doubted for standing in self._standings.values())


class MarketWatch:
    """Keeps the connection and tells workers and listings what it shows.

    Args:
        role: The historian's; the alarm is left in its error text.
        segment: The segment; live bars are read.
        config: Where the streams are.
        book: The symbols table.
        inboxes: One outlet per worker.
        health: Its counters are kept.
        now_ms: Returns the exchange's time, UTC ms.
        on_contract: Called when a contract was listed, halted or changed.
    """

    def __init__(
        self,
        role: Role,
        segment: Segment,
        config: ExchangeConfig,
        book: SymbolBook,
        inboxes: list[Outlet],
        health: Health,
        now_ms: Callable[[], int],
        *,
        on_contract: Callable[[], None],
    ) -> None:
        self._role = role
        self._config = config
        self._views = [PartitionView(segment, worker) for worker in range(segment.layout.workers)]
        self._book = book
        self._inboxes = inboxes
        self._counters = health.counters
        self._now_ms = now_ms
        self._on_contract = on_contract
        self._mutes = Mutes()
        self._slots: dict[str, int] = {}
        self._refresh: asyncio.TimerHandle | None = None
        self._said_s = -_REPEAT_S
        self.bad_frames = 0

    async def run(self) -> None:
        """Listen and look, for ever."""
        connection = StreamConnection(
            market_stream_url(self._config.ws_url),
            _STREAMS,
            self.take,
            self._on_state,
            name="historian stream",
            proxy=self._config.proxy,
            connect_timeout_s=self._config.connect_timeout_s,
            reconnect_max_s=self._config.reconnect_max_s,
        )
        connection.start()
        try:
            while True:
                self.look()
                # Live bars are words of other processes' memory: nothing announces a change.
                await asyncio.sleep(_LOOK_S)
        finally:
            await connection.close()

    def take(self, payload: bytes) -> None:
        """Take a frame of either stream."""
        try:
            frame = _frame.decode(payload)
            if frame.stream == "!contractInfo":
                self._contract_changed()
            elif frame.stream == "!ticker@arr":
                self._tell(_rows.decode(frame.data))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.bad_frames += 1
            if self.bad_frames == 1:
                _log.warning("market frame refused bytes=%d error=%s", len(payload), error)

    def look(self) -> None:
        """Compare every live bar with what the exchange has told."""
        carried = self._book.carried()
        if self._slots.keys() != carried.keys():
            for gone in self._slots.keys() - carried.keys():
                self._mutes.forget(self._slots[gone])
            self._slots = {name: entry.slot for name, entry in carried.items()}
        now_ms = self._now_ms()
        new = 0
        for entry in carried.values():
            try:
                seen_id = self._last_trade_id(entry)
            except RowBusy:
                continue  # its worker was killed there; the row is repaired when it is back
            since_ms = self._mutes.look(entry.slot, seen_id, now_ms)
            if since_ms is not None:
                self._inboxes[entry.worker].urgent(command(lay.COMMAND_DOUBT, entry.slot, open_time=since_ms))
                new += 1
        self._counters.add("mutes_total", new)
        self._counters.set("symbols_mute", self._mutes.doubted)
        if new:
            self._alarm(new)

    def _tell(self, rows: list[_Row]) -> None:
        now_ms = self._now_ms()
        for row in rows:
            slot = self._slots.get(row.symbol)
            if slot is not None and row.market == _USDM:
                self._mutes.tell(slot, row.last_id, now_ms)

    def _last_trade_id(self, entry: Entry) -> int:
        row = self._views[entry.worker].live_row(entry.local_slot, 0)
        return int(row["last_trade_id"]) if row["state"] != lay.STATE_EMPTY else -1

    def _contract_changed(self) -> None:
        """Let announcements that come together be one question."""
        if self._refresh is None:
            self._refresh = asyncio.get_running_loop().call_later(_REFRESH_S, self._ask_listings)

    def _ask_listings(self) -> None:
        self._refresh = None
        self._on_contract()

    def _alarm(self, new: int) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s < _REPEAT_S:
            return
        self._said_s = now_s
        text = (
            f"{self._mutes.doubted} of {len(self._slots)} symbols trade at the exchange but their streams are silent; "
            "their bars are flagged partial and repaired by REST; check exchange.ws_url"
        )
        _log.warning("streams mute symbols=%d new=%d: %s", self._mutes.doubted, new, text)
        self._role.report_error(text)

    def _on_state(self, state: StreamState, reason: str) -> None:
        if state is StreamState.CONNECTED:
            _log.info("market stream connected")
        elif state is not StreamState.SUBSCRIBED:
            _log.info("market stream %s reason=%r", state.value, reason)
