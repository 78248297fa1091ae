"""One symbol of the market: its history, its live minutes, its aggTrades and the bars of every interval."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence

from .bars import Bar, Fill, fold
from .candles import MinuteRows, Series
from .groups import Group, Grouper
from .history import BlockCache, History
from .intervals import DAY_MS, MINUTE_MS, next_open_ms, open_ms, previous_open_ms
from .symbols import SymbolSpec


__all__ = ["KEPT_AGG_TRADES", "Instrument"]

KEPT_AGG_TRADES = 20_000

Spans = Sequence[tuple[int, int]]


class Instrument:
    """State of one symbol.

    Args:
        spec: what is listed.
        seed: the simulator's seed.
        start_ms: the simulator's first instant.
        cross_minutes: whether aggTrade groups may cross minute ends.
        cache: blocks of history, shared between symbols.
    """

    def __init__(self, spec: SymbolSpec, seed: int, start_ms: int, cross_minutes: bool, cache: BlockCache) -> None:
        self.spec = spec
        self.status = spec.status
        self.listed = spec.listed
        self.lower = "".join(c.lower() if c.isascii() else c for c in spec.symbol)
        minute_ms = start_ms - start_ms % MINUTE_MS
        self.history = History(spec, seed, min(minute_ms, spec.delivery_ms), cache)
        self.has_history = self.history.first_ms < self.history.end_ms
        price = self.history.close_at_end() if self.has_history else spec.reference_price
        # A new listing has no bar before its first trade.
        self.first_bar_ms: int | None = self.history.first_ms if self.has_history else None
        self.stopped_ms: int | None = spec.delivery_ms if spec.status == "SETTLING" else None
        self.rows = MinuteRows(minute_ms, price)
        self.first_id = 5_000_000_000 + spec.key % 3_000_000_000
        self.last_id = self.first_id - 1
        self.grouper = Grouper(2_000_000_000 + spec.key % 1_000_000_000, cross_minutes)
        self.series: dict[str, Series] = {"1m": Series("1m", Bar(minute_ms, price))}
        self.last_frame_ms = 0
        self.dirty = False
        self.agg_trades: deque[Group] = deque(maxlen=KEPT_AGG_TRADES)
        self.trades: deque[Fill] = deque(maxlen=1000)
        self._day: tuple[int, Bar | None] = (-1, None)

    @property
    def last_price(self) -> int:
        """Price of the last trade, or the last historic close."""
        return self.rows.last.close

    def add(self, fill: Fill) -> None:
        """Apply one trade to the rows and to every open bar; the series must already stand in its bar."""
        if self.first_bar_ms is None:
            self.first_bar_ms = fill.time_ms - fill.time_ms % MINUTE_MS
        self.rows.add(fill)
        for series in self.series.values():
            series.bar.add(fill)
        self.last_id = fill.last_id
        self.trades.append(fill)

    def continue_from(self, fill: Fill) -> None:
        """Let the history end where a recording begins: its price and its trade id."""
        self.first_id, self.last_id = fill.first_id, fill.first_id - 1
        if self.has_history:
            self.history.align(fill.price)
            price = self.history.close_at_end()
            self.rows = MinuteRows(self.rows.start_ms, price)
            self.series["1m"] = Series("1m", Bar(self.rows.start_ms, price))

    def activate(self, interval: str, now_ms: int) -> None:
        """Begin to keep the open bar of one more interval."""
        if interval in self.series:
            return
        at = open_ms(interval, now_ms)
        found = self.bars(interval, [at], now_ms) if self.first_bar_ms is not None else []
        self.series[interval] = Series(interval, found[0].copy() if found else Bar(at, self.last_price))

    def opens(
        self, interval: str, start_ms: int | None, end_ms: int | None, limit: int, now_ms: int, gaps: Spans = ()
    ) -> list[int]:
        """Return the open times that a klines request selects.

        With a start: the first `limit` from it. Otherwise: the last `limit` up to the end, or up to now. Rows that
        lie wholly in one of the gaps do not exist.
        """
        if self.first_bar_ms is None:
            return []
        first = open_ms(interval, self.first_bar_ms)
        last = open_ms(interval, now_ms if self.stopped_ms is None else min(now_ms, self.stopped_ms - 1))
        if end_ms is not None:
            last = min(last, open_ms(interval, max(end_ms, 0)))
        result: list[int] = []
        if start_ms is not None:
            at = max(first, open_ms(interval, max(start_ms, 0)))
            if at < start_ms:
                at = next_open_ms(interval, at)
            while at <= last and len(result) < limit:
                if not (gaps and _missing(interval, at, gaps)):
                    result.append(at)
                at = next_open_ms(interval, at)
            return result
        at = last
        while at >= first and len(result) < limit:
            if not (gaps and _missing(interval, at, gaps)):
                result.append(at)
            at = previous_open_ms(interval, at)
        result.reverse()
        return result

    def bars(self, interval: str, opens: list[int], now_ms: int) -> list[Bar]:
        """Return the bars opened at these ascending open times, history and live minutes folded together."""
        result: list[Bar] = []
        first = 0
        for place, at in enumerate(opens):
            if place + 1 == len(opens) or opens[place + 1] != next_open_ms(interval, at):
                result += self._consecutive(interval, opens[first : place + 1], now_ms)
                first = place + 1
        return result

    def _consecutive(self, interval: str, opens: list[int], now_ms: int) -> list[Bar]:
        split_ms = self.rows.start_ms
        if self.stopped_ms is None:
            self.rows.extend(now_ms)
        past = [at for at in opens if next_open_ms(interval, at) <= split_ms] if self.has_history else []
        result = self.history.bars(interval, past) if past else []
        floor_ms = self.first_bar_ms or 0
        for at in opens[len(past) :]:
            end_ms = next_open_ms(interval, at)
            pieces: list[Bar] = []
            if self.has_history and at < self.history.end_ms:
                head = self.history.fold(at, at, end_ms)
                if head.count:
                    head.first_id, head.last_id = self.first_id - head.count, self.first_id - 1
                pieces.append(head)
            if self.stopped_ms is None or self.stopped_ms > split_ms:
                stop_ms = end_ms if self.stopped_ms is None else min(end_ms, self.stopped_ms)
                pieces += self.rows.between(max(at, floor_ms), stop_ms)
            result.append(fold(at, pieces))
        return result

    def day(self, now_ms: int) -> Bar | None:
        """Return the rolling 24 hours up to now; its open time is minute-aligned."""
        if self.first_bar_ms is None or (self.stopped_ms is not None and self.stopped_ms < now_ms - DAY_MS):
            return None
        self.rows.extend(now_ms)
        minute_ms = now_ms - now_ms % MINUTE_MS
        if self._day[0] != minute_ms:
            self._day = (minute_ms, self._whole_day(minute_ms))
        current = self.rows.between(max(minute_ms, self.first_bar_ms), minute_ms + MINUTE_MS)
        closed = self._day[1]
        pieces = ([closed] if closed else []) + current
        return fold(pieces[0].open_time, pieces) if pieces else None

    def _whole_day(self, minute_ms: int) -> Bar | None:
        from_ms = minute_ms - DAY_MS + MINUTE_MS
        pieces: list[Bar] = []
        if self.has_history and from_ms < self.history.end_ms and minute_ms > self.history.first_ms:
            head = self.history.fold(max(from_ms, self.history.first_ms), from_ms, minute_ms)
            head.first_id, head.last_id = self.first_id - head.count, self.first_id - 1
            pieces.append(head)
        pieces += self.rows.between(max(from_ms, self.first_bar_ms or 0), minute_ms)
        return fold(pieces[0].open_time, pieces) if pieces else None

    def select_agg_trades(
        self, from_id: int | None, start_ms: int | None, end_ms: int | None, limit: int, oldest_ms: int = 0
    ) -> list[Group] | None:
        """Return aggTrades: from an id, from a time, or the most recent ones; bounds inclusive.

        None if that reaches back beyond `oldest_ms` or beyond what is kept. There are none before the start.
        """
        kept = list(self.agg_trades)
        low, high = 0, len(kept)
        known_ms = kept[0].first_ms if len(kept) == KEPT_AGG_TRADES else 0
        if start_ms is not None:
            if start_ms < max(oldest_ms, known_ms):
                return None
            low = bisect_left(kept, start_ms, key=lambda group: group.first_ms)
        if end_ms is not None:
            if end_ms < max(oldest_ms, known_ms):
                return None
            high = bisect_right(kept, end_ms, key=lambda group: group.first_ms)
        if from_id is not None:
            if from_id < (kept[0].agg_id if kept else self.grouper.next_id):
                return None
            low = max(low, bisect_left(kept, from_id, key=lambda group: group.agg_id))
            if low < len(kept) and kept[low].first_ms < oldest_ms:
                return None
        if from_id is None and start_ms is None:
            low = max(low, high - limit)
        return kept[low : min(high, low + limit)]


def _missing(interval: str, at: int, gaps: Spans) -> bool:
    end_ms = next_open_ms(interval, at)
    return any(from_ms <= at and end_ms <= to_ms for from_ms, to_ms in gaps)
