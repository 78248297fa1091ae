"""Plays a market of the oracle to an engine, in any order and with any loss, and watches what comes out."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

from klshm import intervals
from klshm.core import events as ev
from klshm.core import state as st
from klshm.shm import layout as lay
from tests.core.feed import CELLS, CONFIRMED, MINUTE, PARTIAL, PROVISIONAL, Feed, event
from tests.core.oracle import Bar, Frame, Group, Market


Thing = Group | Frame
Arrivals = list[tuple[int, Thing]]
INTERVALS: Final = ("1m", "5m", "30m", "4h", "1d", "1w")


def units(value: Decimal, decimals: int) -> int:
    """Return a decimal as a count of its smallest units, exactly."""
    scaled = value.scaleb(decimals)
    assert scaled == int(scaled)
    return int(scaled)


def by_arrival(rng: random.Random, things: Iterable[Thing], base_ms: float, spread_ms: float) -> Arrivals:
    """Return things with their arrival, each stream in its own order."""
    latest, out = 0, []
    for thing in things:
        latest = max(latest, thing.sent + round(base_ms + rng.expovariate(1 / spread_ms) if spread_ms else base_ms))
        out.append((latest, thing))
    return out


def merged(rng: random.Random, *streams: list[Any]) -> list[Any]:
    """Return a random merge that keeps the order of every stream."""
    left = [list(reversed(stream)) for stream in streams]
    out = []
    while any(left):
        weights = [len(stream) for stream in left]
        out.append(rng.choices(left, weights)[0].pop())
    return out


class Play:
    """One engine, one symbol, one market.

    Args:
        market: What really happens.
        decimals: Of the symbol when it joins.
        rest: Whether the historian answers needs.
        lag_ms: What the engine is told the streams lag.
        joined_ms: ms after the market's start at which the symbol joins.
    """

    def __init__(
        self,
        market: Market,
        *,
        decimals: tuple[int, int] = (2, 3),
        rest: bool = True,
        lag_ms: int = 60,
        joined_ms: int = 0,
        late_ms: int = 250,
    ) -> None:
        self.market = market
        self.rest = rest
        self.late_ms = late_ms + lag_ms
        self.feed = Feed(start=market.start, joined_s=None)
        self.feed.now = market.start + joined_ms
        self.feed.add(decimals=decimals, origin=market.fills[0].time // MINUTE * MINUTE)
        self.feed.engine.set_lag(lag_ms)
        self.ticked = self.feed.now // MINUTE * MINUTE
        self.settled = self.ticked
        self.checked = self.feed.now
        self.asked = 0
        self.entries: Counter[tuple[str, int]] = Counter()
        self.revisions: dict[tuple[str, int], int] = defaultdict(int)
        self.wrong_confirmed: list[str] = []
        self.wrong_settled: list[str] = []
        self.falls: list[str] = []
        self.seen: tuple[int, float] = (0, 0.0)
        self.truth: dict[tuple[str, int], Bar | None] = {}
        self.replies: list[tuple[int, list[tuple[int, Bar, str]]]] = []
        self.decimals = decimals
        self.lag_ms = lag_ms

    # Delivery

    def group(self, group: Group) -> Any:
        """Return the event of an aggregate trade."""
        head = group.fills[0]
        pd, qd = -int(head.price.as_tuple().exponent), -int(group.quantity.as_tuple().exponent)
        return event(
            kind=ev.TRADE,
            time=group.sent,
            open_time=head.time,
            flag=int(not head.taker_buy),
            a=group.a,
            f=head.id,
            l=group.fills[-1].id,
            price_decimals=pd,
            quantity_decimals=qd,
            open=units(head.price, pd),
            volume=units(group.quantity, qd),
        )

    def bar(self, bar: Bar, kind: int, **fields: int) -> Any:
        """Return the event of an official bar."""
        places = [-int(cell.as_tuple().exponent) for cell in bar.cells]
        pd, qd, nd = max(places[:4]), max(places[4], places[7]), max(places[5], places[8])
        o, h, l, c, v, q, n, tv, tq = bar.cells
        return event(
            kind=kind,
            open_time=bar.time,
            price_decimals=pd,
            quantity_decimals=qd,
            quote_decimals=nd,
            open=units(o, pd),
            high=units(h, pd),
            low=units(l, pd),
            close=units(c, pd),
            volume=units(v, qd),
            quote_volume=units(q, nd),
            taker_buy_volume=units(tv, qd),
            taker_buy_quote_volume=units(tq, nd),
            trade_count=int(n),
            **fields,
        )

    def deliver(self, thing: Thing) -> None:
        """Apply one thing now."""
        if isinstance(thing, Group):
            self.apply(self.group(thing))
        else:
            fields = dict(time=thing.sent, flag=int(thing.final), f=thing.bar.first, l=thing.bar.last)
            self.apply(self.bar(thing.bar, ev.FRAME, **fields))

    def at(self, arrival: int, thing: Thing | None = None) -> None:
        """Let the clock reach a moment, with all it brings, then deliver a thing."""
        while True:
            tick, settle, check = self.ticked + MINUTE + 2, self.settled + MINUTE + self.late_ms, self.checked + 250
            reply = self.replies[0][0] if self.replies else 1 << 60
            due = min(tick, settle, check, reply)
            if due > arrival:
                break
            self.feed.now = max(self.feed.now, due)
            if due == reply:
                self.answer()
            elif due == tick:
                self.ticked += MINUTE
                self.apply(event(kind=ev.TICK, time=self.ticked))
            elif due == settle:
                self.settled += MINUTE
                self.apply(event(kind=ev.SETTLE, open_time=self.settled))
                self.judge_settled(self.settled - MINUTE)
            else:
                self.checked = due
                self.apply(event(kind=ev.CHECK))
                self.ask()
        self.feed.now = max(self.feed.now, arrival)
        if thing is not None:
            self.deliver(thing)

    def run(self, arrivals: Arrivals, then_ms: int = 0) -> None:
        """Deliver things in the order of their arrival, then let some time pass."""
        for arrival, thing in sorted(arrivals, key=lambda pair: pair[0]):
            self.at(arrival, thing)
        self.at(max(self.feed.now, self.market.start + self.market.minutes * MINUTE) + then_ms)

    def apply(self, one: Any) -> None:
        """Apply one event and look at everything it changed."""
        self.feed.apply(one)
        self.watch_log()
        self.watch_live()

    def restart(self, arrival: int) -> None:
        """Start another engine over the memory of one that was killed some time before."""
        origin = self.market.fills[0].time // MINUTE * MINUTE
        before, self.feed = self.feed, Feed(start=self.market.start, joined_s=None, memory=self.feed.words)
        self.feed.now, self.feed.log = arrival, before.log
        self.feed.engine.recover()
        self.feed.add(decimals=self.decimals, origin=origin)
        self.feed.engine.set_lag(self.lag_ms)
        self.seen = (0, 0.0)
        self.ticked = arrival // MINUTE * MINUTE
        self.settled, self.checked = self.ticked - MINUTE, arrival
        self.apply(event(kind=ev.TICK, time=self.ticked))

    # The historian

    def ask(self) -> None:
        """Answer a need the way the historian does: 5 or 10 s after the end, the empty ones in company."""
        need = self.feed.need()
        reason, now = int(need["reason"]), self.feed.now
        if not self.rest or reason == 0 or now < self.asked:
            return
        first, last = int(need["from_ms"]), int(need["to_ms"])
        lost = reason & (lay.NEED_HOLE | lay.NEED_DOUBT)
        if reason == lay.NEED_EMPTY and now < first + MINUTE + 90_000:
            return
        last = min(last, (now - (5_000 if lost else 10_000)) // MINUTE * MINUTE - MINUTE)
        if last < first:
            return
        self.asked = now + 5_000
        rows = []
        for time in range(first, last + MINUTE, MINUTE):
            bar = self.official("1m", time)
            if bar is not None:
                rows.append((now, bar, "1m"))
        self.replies.append((now + 30, rows))

    def answer(self) -> None:
        """Deliver the rows of one answer."""
        for read, bar, interval in self.replies.pop(0)[1]:
            index = self.feed.index(interval)
            self.apply(self.bar(bar, ev.REST_ROW, time=read, interval=index))

    # What must hold

    def official(self, interval: str, time: int) -> Bar | None:
        """Return the exchange's bar, made from its fills."""
        key = interval, time
        if key not in self.truth:
            self.truth[key] = self.market.official(time, intervals.length_ms(interval))
        return self.truth[key]

    def differs(self, row: Any, interval: str) -> str:
        """Return in what a row differs from the exchange's bar, nothing if it does not."""
        bar = self.official(interval, int(row["open_time"]))
        if bar is None:
            return f"{interval} {row['open_time']}: the exchange has no such bar"
        wrong = [
            f"{name} {row[name]} instead of {cell}"
            for name, cell in zip(CELLS, bar.cells, strict=True)
            if row[name] != float(cell)
        ]
        minute = (int(row["open_time"]) - self.market.start) / MINUTE
        return f"{interval} minute {minute:g} state {row['state']} flags {row['flags']}: {wrong}" if wrong else ""

    def watch_log(self) -> None:
        """Every entry that says confirmed is right, revisions grow."""
        for row in self.feed.logged():
            interval = intervals.name_of(int(row["interval"]))
            key = interval, int(row["open_time"])
            self.entries[key] += 1
            assert row["revision"] > self.revisions[key], f"{key} logged twice as revision {row['revision']}"
            self.revisions[key] = int(row["revision"])
            if row["state"] == CONFIRMED and (wrong := self.differs(row, interval)):
                self.wrong_confirmed.append(wrong)

    def watch_live(self) -> None:
        """The volume of the open bar never falls while no hole is open, and nothing is ever negative."""
        row = self.feed.live()
        opened, volume = int(row["open_time"]), float(row["volume"])
        assert volume >= 0 and row["trade_count"] < 1 << 31 and row["quote_volume"] >= 0
        if opened == self.seen[0] and volume < self.seen[1] and self.holes == 0:
            self.falls.append(f"minute {(opened - self.market.start) // MINUTE}: {self.seen[1]} to {volume}")
        assert opened >= self.seen[0]
        self.seen = opened, volume

    @property
    def holes(self) -> int:
        """Holes that are open."""
        state = self.feed.engine.memory.state
        return int(state[state[st.C_SYMBOLS] + st.S_HOLES])

    def judge_settled(self, time: int) -> None:
        """A bar that is wrong when it settles says that it is partial or may change."""
        row = self.feed.stored(time)
        if row is None:
            return
        if (wrong := self.differs(row, "1m")) and not int(row["flags"]) & (PARTIAL | PROVISIONAL):
            self.wrong_settled.append(wrong)

    def final_rows(self) -> list[tuple[str, Any]]:
        """Return every closed row of the time played."""
        rows = []
        for interval in INTERVALS:
            length = intervals.length_ms(interval)
            first = intervals.open_time_of(interval, self.market.start)
            for time in range(first, self.ticked - length + 1, length):
                row = self.feed.stored(time, interval)
                if row is not None:
                    rows.append((interval, row))
        return rows

    def assert_nothing_false(self) -> None:
        """Check what must hold in every run, whatever is lost."""
        assert self.wrong_confirmed == []
        assert self.wrong_settled == []
        assert self.falls == []
        for interval, row in self.final_rows():
            if row["state"] == CONFIRMED:
                assert self.differs(row, interval) == ""

    def assert_all_right(self) -> None:
        """Check that every bar of every interval is there, confirmed and equal in nine cells."""
        self.assert_nothing_false()
        for interval in INTERVALS:
            length = intervals.length_ms(interval)
            first = intervals.open_time_of(interval, self.market.start)
            for time in range(first, self.market.start + self.market.minutes * MINUTE - length + 1, length):
                if self.official(interval, time) is None:
                    continue
                row = self.feed.stored(time, interval)
                assert row is not None, f"{interval} minute {(time - self.market.start) // MINUTE} is missing"
                assert self.differs(row, interval) == ""
                assert row["state"] == CONFIRMED, f"{interval} minute {(time - self.market.start) // MINUTE} {row}"
                assert row["flags"] & (PARTIAL | PROVISIONAL) == 0
