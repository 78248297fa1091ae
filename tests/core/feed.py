"""An engine on private memory, told what the exchange says in plain numbers, and read like a reader does."""

from __future__ import annotations

from typing import Any

import numpy as np

from klshm import intervals
from klshm.core import events as ev
from klshm.core.engine import Engine, partition_layout
from klshm.core.events import EVENT
from klshm.shm import layout as lay
from klshm.shm.consumer import RingConsumer
from klshm.shm.layout import KLINE, ROW_WORDS


MINUTE = 60_000
START = 1_791_271_440_000 // MINUTE * MINUTE
"""Open time of minute 0: 2026-10-06 07:24 UTC."""
MONDAY = 1_791_158_400_000 // (7 * 86_400_000) * (7 * 86_400_000) + intervals.MONDAY_MS
"""A Monday 00:00 UTC: every interval ends here."""

PARTIAL, PROVISIONAL, FILLED = lay.FLAG_PARTIAL, lay.FLAG_PROVISIONAL, lay.FLAG_FILLED
LATE, CORRECTED, DERIVED = lay.FLAG_LATE, lay.FLAG_CORRECTED, lay.FLAG_DERIVED
LIVE, CLOSED, CONFIRMED = lay.STATE_LIVE, lay.STATE_CLOSED, lay.STATE_CONFIRMED
CELLS = (
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "trade_count",
    "taker_buy_volume",
    "taker_buy_quote_volume",
)


def event(**fields: int) -> Any:
    """Return one event, shape (1,), dtype EVENT."""
    one = np.zeros(1, dtype=EVENT)
    for name, value in fields.items():
        one[name] = value
    return one


def volumes(row: Any) -> tuple[float, int]:
    """Return volume and count of a row."""
    return float(row["volume"]), int(row["trade_count"])


class Feed:
    """One engine and its clock.

    Prices have two decimals, quantities three; times are seconds from the open time of minute 0.

    Args:
        slots: Symbols the engine can hold.
        start: Open time of minute 0, UTC ms.
        joined_s: When the symbols of slot 0.. are added; None: none is.
        memory: Words of an engine before this one, to start again over.
        more: Options of the engine.
    """

    def __init__(
        self,
        slots: int = 1,
        start: int = START,
        joined_s: float | None = 49.0,
        memory: Any = None,
        history_rows: int = 128,
        **more: Any,
    ) -> None:
        self.layout = partition_layout(slots, history_rows=history_rows)
        self.words = np.zeros(self.layout.total_bytes // 8, np.int64) if memory is None else memory
        self.engine = Engine(self.words, self.layout, **more)
        self.start = start
        self.now = start
        block = self.layout.partition_offset(0) // 8
        self.block = self.words[block : block + lay.BLOCK_WORDS]
        log = self.layout.log_offset(0) // 8
        self.log = RingConsumer(
            self.words[log : log + self.layout.log_rows * ROW_WORDS],
            self.block[lay.B_TAIL : lay.B_TAIL + 1],
            int(self.block[lay.B_TAIL]),
        )
        if joined_s is not None:
            self.at(joined_s)
            for slot in range(slots):
                self.add(slot)

    # What the exchange, the clock and the historian say

    def at(self, time_s: float) -> None:
        """Move the clock, never back."""
        self.now = max(self.now, self.start + round(time_s * 1000))

    def apply(self, *events: Any) -> int:
        """Apply events in one batch."""
        return self.engine.apply(np.concatenate(events), self.now)

    def add(self, slot: int = 0, symbol: int | None = None, origin: int | None = None, decimals: Any = (2, 3)) -> None:
        """Let a symbol join at a slot."""
        number = slot + 7 if symbol is None else symbol
        first = self.start if origin is None else origin
        self.apply(
            event(
                kind=ev.SYMBOL_ADD,
                slot=slot,
                l=number,
                open_time=first,
                price_decimals=decimals[0],
                quantity_decimals=decimals[1],
            )
        )

    def trade(
        self,
        a: int,
        f: int,
        l: int,
        q: float,
        time_s: float,
        p: float = 100,
        *,
        sent_s: float | None = None,
        taker: bool = True,
        slot: int = 0,
    ) -> None:
        """Send an aggregate trade; it is sent 100 ms after its first fill unless told otherwise."""
        first = self.start + round(time_s * 1000)
        sent = first + 100 if sent_s is None else self.start + round(sent_s * 1000)
        self.now = max(self.now, sent)
        self.apply(
            event(
                kind=ev.TRADE,
                slot=slot,
                time=sent,
                open_time=first,
                flag=int(not taker),
                a=a,
                f=f,
                l=l,
                price_decimals=2,
                quantity_decimals=3,
                open=round(p * 100),
                volume=round(q * 1000),
            )
        )

    def bar_event(self, kind: int, v: float, n: int, prices: Any, quote: float | None, **fields: int) -> Any:
        """Return an official bar whose trades were all taker buys."""
        o, h, l, c = (round(price * 100) for price in prices)
        turnover = round((v * 100 if quote is None else quote) * 100_000)
        return event(
            kind=kind,
            price_decimals=2,
            quantity_decimals=3,
            quote_decimals=5,
            open=o,
            high=h,
            low=l,
            close=c,
            volume=round(v * 1000),
            quote_volume=turnover,
            taker_buy_volume=round(v * 1000),
            taker_buy_quote_volume=turnover,
            trade_count=n,
            **fields,
        )

    def frame(
        self,
        last: int,
        v: float,
        n: int,
        *,
        first: int = 10,
        minute: int = 0,
        final: bool = False,
        sent_s: float | None = None,
        prices: Any = (100, 100, 100, 100),
        quote: float | None = None,
        slot: int = 0,
    ) -> None:
        """Send an official kline frame."""
        if sent_s is None:
            sent_s = max((self.now - self.start) / 1000, minute * 60)
        self.at(sent_s)
        self.apply(
            self.bar_event(
                ev.FRAME,
                v,
                n,
                prices,
                quote,
                slot=slot,
                time=self.start + round(sent_s * 1000),
                open_time=self.start + minute * MINUTE,
                flag=int(final),
                f=first,
                l=last,
            )
        )

    def rest(
        self,
        v: float,
        n: int,
        *,
        age_s: float,
        minute: int = 0,
        interval: str = "1m",
        prices: Any = (100, 100, 100, 100),
        quote: float | None = None,
        slot: int = 0,
        open_time: int | None = None,
    ) -> None:
        """Send an official row that was read `age_s` after its end."""
        opened = self.start + minute * MINUTE if open_time is None else open_time
        read = opened + intervals.length_ms(interval) + round(age_s * 1000)
        self.now = max(self.now, read)
        index = self.index(interval)
        fields = dict(slot=slot, time=read, open_time=opened, interval=index)
        self.apply(self.bar_event(ev.REST_ROW, v, n, prices, quote, **fields))

    def tick(self, minute: int) -> None:
        """Let the clock reach the open time of a minute."""
        self.at(minute * 60)
        self.apply(event(kind=ev.TICK, time=self.start + minute * MINUTE))

    def settle(self, minute: int, after_ms: int = 250) -> None:
        """Say that nothing of what ended by a minute can be under way any more."""
        self.at(minute * 60 + after_ms / 1000)
        self.apply(event(kind=ev.SETTLE, open_time=self.start + minute * MINUTE))

    def check(self) -> None:
        """Look for mute streams and write the needs table."""
        self.apply(event(kind=ev.CHECK))

    def down(self, time_s: float, slot: int = 0) -> None:
        """Say that the trade stream is down."""
        self.at(time_s)
        self.apply(event(kind=ev.STREAM_DOWN, slot=slot, time=self.start + round(time_s * 1000)))

    def ticker(self, last: int, slot: int = 0) -> None:
        """Say that the exchange's newest trade id is `last`."""
        self.apply(event(kind=ev.TICKER, slot=slot, time=self.now, l=last))

    # What readers see

    def index(self, interval: str) -> int:
        """Return the index of a kept interval."""
        return self.layout.interval_codes.index(intervals.code_of(interval))

    def live(self, interval: str = "1m", slot: int = 0) -> Any:
        """Return the live row."""
        at = self.layout.live_offset(0) // 8 + (slot * self.layout.intervals + self.index(interval)) * ROW_WORDS
        return self.words[at : at + ROW_WORDS].copy().view(KLINE)[0]

    def stored(self, open_time: int, interval: str = "1m", slot: int = 0) -> Any:
        """Return the history row of an open time, None if there is none."""
        index = self.index(interval)
        number = (open_time - intervals.anchor_ms(interval)) // intervals.length_ms(interval)
        row = self.layout.history_row(slot, index) + number % self.layout.history_rows[index]
        at = self.layout.history_offset(0) // 8 + row * ROW_WORDS
        found = self.words[at : at + ROW_WORDS].copy().view(KLINE)[0]
        return found if found["open_time"] == open_time and found["sequence"] > 0 else None

    def bar(self, minute: int = 0, interval: str = "1m", slot: int = 0) -> Any:
        """Return the bar that holds a minute: live while it is open, else from history."""
        opened = intervals.open_time_of(interval, self.start + minute * MINUTE)
        row = self.live(interval, slot)
        return row if row["open_time"] == opened else self.stored(opened, interval, slot)

    def need(self, slot: int = 0) -> Any:
        """Return the row of the needs table."""
        at = self.layout.needs_offset(0) // 8 + slot * ROW_WORDS
        return self.words[at : at + ROW_WORDS].copy().view(lay.NEED)[0]

    def logged(self) -> Any:
        """Return what was logged since the last call."""
        return self.log.take()

    def count(self, name: str) -> int:
        """Return a counter."""
        return self.engine.counter(name)

    def assert_bar(
        self, volume: float, count: int, minute: int = 0, *, state: int | None = None, flags: int | None = None
    ) -> None:
        """Check volume and count of a minute, and its state and flags if they are given."""
        row = self.bar(minute)
        assert row is not None, f"minute {minute} has no bar"
        assert volumes(row) == (volume, count)
        if state is not None:
            assert row["state"] == state
        if flags is not None:
            assert row["flags"] == flags


# How tests begin


def begun(slots: int = 1, **more: Any) -> Feed:
    """Return a feed whose minute 0 has a trade of 4 at 100 that an official frame has measured."""
    feed = Feed(slots, **more)
    feed.trade(1, 10, 10, 4, 50.0)
    feed.frame(10, 4, 1)
    return feed


def quiet(minute: int = 1, **more: Any) -> Feed:
    """Return the same with nothing but the clock since; minutes that ended more than five ago have no record."""
    feed = begun(**more)
    for each in range(1, minute + 1):
        feed.tick(each)
        feed.settle(each)
    feed.logged()
    return feed


def listed_long_ago() -> Feed:
    """Return a feed of a symbol that is older than its history here, which is empty."""
    feed = Feed(joined_s=None)
    feed.at(49)
    feed.add(0, origin=START - 1000 * MINUTE)
    feed.trade(1, 10, 10, 4, 50.0)
    feed.logged()
    return feed
