"""The market core: moves simulated time forward and says what the exchange would have sent. No input or output.

Everything happens in one order of time: trades, the end of aggTrade groups, minute ends. Kline frames follow the
recordings (`lead`: sent by a trade, at least 250 ms after the last frame, never trailing) or the documentation
(`tick`: every 250 ms when something changed).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

from .bars import Fill
from .candles import Series
from .events import AggEvent, ContractEvent, Event, KlineEvent, RawEvent, TradeEvent
from .groups import FLUSH_MS
from .history import BlockCache
from .instrument import Instrument
from .intervals import MINUTE_MS
from .symbols import SymbolSpec
from .trades import GeneratedTrades, TradeSource


__all__ = ["FRAME_GAP_MS", "LATE_FINAL_MS", "Market", "MarketOptions"]

FRAME_GAP_MS = 250
LATE_FINAL_MS = 2_004
EMPTY_OPEN_MS = 2_400
_FILL, _FLUSH, _OUT, _MINUTE, _EMPTY, _TICK, _STATUS, _GONE, _RAW = range(9)


@dataclass(frozen=True, slots=True)
class MarketOptions:
    """Switches of the market; see the command line."""

    seed: int = 1
    boundary_effect: bool = True
    id_gaps: bool = True
    frame_mode: str = "lead"
    empty_frames: str = "none"
    forced_share: float = 0.0005
    settled_rows: str = "stop"


class Market:
    """All instruments and the queue of what happens next.

    Args:
        specs: what is listed at the start.
        start_ms: first instant of simulated time.
        options: switches.
        sources: recorded trades by symbol, in place of generated ones.
        raw: recorded frames (event time, stream, text), sent verbatim.
    """

    def __init__(
        self,
        specs: list[SymbolSpec],
        start_ms: int,
        options: MarketOptions,
        sources: dict[str, TradeSource] | None = None,
        raw: list[RawEvent] | None = None,
    ) -> None:
        self.options = options
        self.start_ms = start_ms
        self.now_ms = start_ms
        self.instruments: dict[str, Instrument] = {}
        self.changed: set[str] = set()
        self.trades_total = 0
        self.version = 0
        self._cache = BlockCache()
        self._queue: list[tuple[int, int, int, Any, Any]] = []
        self._serial = 0
        self._sources: dict[str, TradeSource] = {}
        self._silent: set[str] = set()
        for spec in specs:
            self.list_symbol(spec, (sources or {}).get(spec.symbol))
        minute_end_ms = start_ms - start_ms % MINUTE_MS + MINUTE_MS
        self._push(minute_end_ms + LATE_FINAL_MS, _MINUTE, None, minute_end_ms)
        if options.empty_frames == "open":
            self._push(minute_end_ms + EMPTY_OPEN_MS, _EMPTY, None, minute_end_ms)
        if options.frame_mode == "tick":
            self._push(start_ms - start_ms % FRAME_GAP_MS + FRAME_GAP_MS, _TICK, None, None)
        for frame in raw or ():
            self._push(frame.event_ms, _RAW, None, frame)

    # Called by the server

    def list_symbol(self, spec: SymbolSpec, source: TradeSource | None = None) -> Instrument:
        """Add an instrument; one that is TRADING begins to trade at once, a replayed one as recorded."""
        options = self.options
        instrument = Instrument(spec, options.seed, self.now_ms, options.boundary_effect, self._cache)
        self.instruments[spec.symbol] = instrument
        if source is not None:
            self._sources[spec.symbol] = source
            fill = self._pull(instrument)
            if fill is not None:
                instrument.continue_from(fill)
        elif spec.status == "TRADING":
            self._start_trading(instrument)
        self.version += 1
        return instrument

    def silence(self, symbol: str) -> None:
        """Keep the market from making frames of a symbol whose recorded frames are sent verbatim."""
        self._silent.add(symbol)

    def schedule_status(
        self, at_ms: int, symbol: str, status: str, *, change: bool = True, brackets: bool = False
    ) -> None:
        """Announce a status on `!contractInfo` at a time; `change` also makes it so, `brackets` tells new ones."""
        self._push(max(at_ms, self.now_ms), _STATUS, self.instruments[symbol], (status, change, brackets))

    def schedule_removal(self, at_ms: int, symbol: str) -> None:
        """Let a symbol leave exchangeInfo at a time."""
        self._push(at_ms, _GONE, self.instruments[symbol], None)

    def next_ms(self) -> int:
        """Return the time of the next thing that happens."""
        return self._queue[0][0]

    def advance(self, to_ms: int) -> list[Event]:
        """Move time forward and return what is sent, in order of event time."""
        queue = self._queue
        out: list[Event] = []
        while queue and queue[0][0] <= to_ms:
            at_ms, _, kind, instrument, item = heapq.heappop(queue)
            self.now_ms = at_ms
            if kind == _FILL:
                self._fill(instrument, item, out)
            elif kind == _OUT:
                out.append(item)
            elif kind == _FLUSH:
                if instrument.grouper.current is item:
                    self._emit_group(instrument, instrument.grouper.flush(), at_ms, out)
            elif kind == _MINUTE:
                self._minute(item, out)
            elif kind == _EMPTY:
                self._empty(at_ms, item, out)
            elif kind == _TICK:
                self._tick(at_ms, out)
            elif kind == _STATUS:
                self._status(at_ms, instrument, item, out)
            elif kind == _GONE:
                instrument.listed = False
                self.version += 1
            else:
                if item.official is not None:
                    self.instruments[item.symbol].rows.replace(item.official)
                out.append(item)
        self.now_ms = max(self.now_ms, to_ms)
        return out

    # Trades

    def _push(self, at_ms: int, kind: int, instrument: Instrument | None, item: object) -> None:
        self._serial += 1
        heapq.heappush(self._queue, (at_ms, self._serial, kind, instrument, item))

    def _start_trading(self, instrument: Instrument) -> None:
        options, spec = self.options, instrument.spec
        self._sources[spec.symbol] = GeneratedTrades(
            spec, options.seed, max(self.now_ms, spec.first_trade_ms), instrument.last_price, instrument.last_id + 1,
            boundary=options.boundary_effect, id_gaps=options.id_gaps,
            forced_share=options.forced_share if options.id_gaps else 0.0,
        )  # fmt: skip
        self._pull(instrument)

    def _pull(self, instrument: Instrument) -> Fill | None:
        source = self._sources.get(instrument.spec.symbol)
        fill = source.next() if source is not None else None
        if fill is not None:
            self._push(fill.time_ms, _FILL, instrument, fill)
        return fill

    def _fill(self, instrument: Instrument, fill: Fill, out: list[Event]) -> None:
        if instrument.status != "TRADING":
            return
        if fill.kind != "MARKET":
            out.append(TradeEvent(fill.time_ms, instrument, fill))
            self._pull(instrument)
            return
        self.trades_total += 1
        self.changed.add(instrument.spec.symbol)
        if instrument.spec.symbol in self._silent:
            self._follow(instrument, fill, out)
            self._pull(instrument)
            return
        out.append(TradeEvent(fill.time_ms, instrument, fill))
        ended = instrument.grouper.add(fill)
        if ended is not None:
            self._emit_group(instrument, ended, fill.time_ms, out)
        if instrument.grouper.current is not None and instrument.grouper.current.first_id == fill.first_id:
            self._push(fill.time_ms + FLUSH_MS + fill.first_id % 2, _FLUSH, instrument, instrument.grouper.current)
        closed = [series for series in instrument.series.values() if fill.time_ms >= series.next_open_ms]
        event_ms = fill.time_ms + fill.first_id * 7 % 23 % 5
        for series in closed:
            if self._final_due(series) and instrument.first_bar_ms is not None:
                self._send(event_ms, instrument, series, final=True)
            else:
                series.final_sent = True
        finals = [series for series in closed if not series.final_sent]
        for series in closed:
            series.roll(fill.time_ms)
        instrument.add(fill)
        instrument.dirty = True
        if self.options.frame_mode == "lead" and fill.time_ms - instrument.last_frame_ms >= FRAME_GAP_MS:
            for series in instrument.series.values():
                if series not in finals:
                    self._send(event_ms, instrument, series, final=False)
            instrument.last_frame_ms = event_ms
        elif finals:
            instrument.last_frame_ms = event_ms
        self._pull(instrument)

    def _follow(self, instrument: Instrument, fill: Fill, out: list[Event]) -> None:
        """Apply a trade whose frames come from the recording: rows and aggTrades only."""
        ended = instrument.grouper.add(fill)
        if ended is not None:
            instrument.agg_trades.append(ended)
        for series in instrument.series.values():
            if fill.time_ms >= series.next_open_ms:
                series.roll(fill.time_ms)
        instrument.add(fill)

    def _emit_group(self, instrument: Instrument, group: Any, event_ms: int, out: list[Event]) -> None:
        instrument.agg_trades.append(group)
        out.append(AggEvent(event_ms, instrument, group))

    # Kline frames

    def _final_due(self, series: Series) -> bool:
        return not series.final_sent and (series.bar.count > 0 or self.options.empty_frames == "final")

    def _send(self, event_ms: int, instrument: Instrument, series: Series, *, final: bool) -> None:
        event = KlineEvent(event_ms, instrument, series.interval, series.bar.copy(), final)
        self._push(event_ms, _OUT, None, event)

    def _living(self) -> list[Instrument]:
        return [
            instrument
            for symbol, instrument in self.instruments.items()
            if symbol not in self._silent and instrument.status == "TRADING" and instrument.first_bar_ms is not None
        ]

    def _minute(self, minute_end_ms: int, out: list[Event]) -> None:
        """Close the bars that no trade has closed within two seconds of their end."""
        for instrument in self._living():
            for series in instrument.series.values():
                if series.next_open_ms > minute_end_ms:
                    continue
                if self._final_due(series):
                    event_ms = minute_end_ms + LATE_FINAL_MS
                    out.append(KlineEvent(event_ms, instrument, series.interval, series.bar.copy(), True))
                series.roll(minute_end_ms)
        self._push(minute_end_ms + MINUTE_MS + LATE_FINAL_MS, _MINUTE, None, minute_end_ms + MINUTE_MS)

    def _empty(self, at_ms: int, minute_ms: int, out: list[Event]) -> None:
        for instrument in self._living():
            out.extend(
                KlineEvent(at_ms, instrument, series.interval, series.bar.copy(), False)
                for series in instrument.series.values()
                if series.bar.open_time == minute_ms and series.bar.count == 0
            )
        self._push(minute_ms + MINUTE_MS + EMPTY_OPEN_MS, _EMPTY, None, minute_ms + MINUTE_MS)

    def _tick(self, at_ms: int, out: list[Event]) -> None:
        for instrument in self._living():
            over = [series for series in instrument.series.values() if at_ms >= series.next_open_ms]
            for series in over:
                if series.bar.count or self.options.empty_frames == "final":
                    out.append(KlineEvent(at_ms, instrument, series.interval, series.bar.copy(), True))
                series.roll(at_ms)
            if instrument.dirty:
                instrument.dirty = False
                out.extend(
                    KlineEvent(at_ms, instrument, series.interval, series.bar.copy(), False)
                    for series in instrument.series.values()
                    if series.bar.count and series not in over
                )
        self._push(at_ms + FRAME_GAP_MS, _TICK, None, None)

    # Listing and delisting

    def _status(self, at_ms: int, instrument: Instrument, item: tuple[str, bool, bool], out: list[Event]) -> None:
        status, change, brackets = item
        if change and instrument.status != status:
            was_trading = instrument.status == "TRADING"
            instrument.status = status
            self.version += 1
            if status == "TRADING" and instrument.spec.symbol not in self._sources:
                self._start_trading(instrument)
            if was_trading:
                self._sources.pop(instrument.spec.symbol, None)
                if self.options.settled_rows == "stop":
                    instrument.stopped_ms = at_ms - at_ms % MINUTE_MS + MINUTE_MS
        out.append(ContractEvent(at_ms, instrument, status, brackets))
