"""An exchange in decimals, written apart from the engine: from individual fills to groups, frames and bars.

It follows what recordings show (facts F1 to F4 of the specification of a bar): a group of fills is
sent when the next begins or 150 ms after its first fill; a frame is sent on a fill, at least 250 ms
after the one before, and holds the bar through that fill; the first fill of a minute sends the
final frame of the minute before instead of one of its own.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from decimal import Decimal


MINUTE = 60_000
FLUSH_MS, WINDOW_MS, FRAME_GAP_MS, FINAL_MS = 150, 100, 250, 2_004


@dataclass(frozen=True)
class Fill:
    """One trade of one order with one other."""

    id: int
    time: int
    price: Decimal
    quantity: Decimal
    taker_buy: bool


@dataclass(frozen=True)
class Group:
    """Consecutive fills of one price and side within 100 ms: an aggregate trade."""

    a: int
    fills: tuple[Fill, ...]
    sent: int

    @property
    def quantity(self) -> Decimal:
        return sum((fill.quantity for fill in self.fills), Decimal(0))


@dataclass(frozen=True)
class Bar:
    """The exchange's own bar: nine cells in their REST order, and the ids of its fills (-1: none)."""

    time: int
    cells: tuple[Decimal, ...]
    first: int
    last: int

    @property
    def count(self) -> int:
        return int(self.cells[6])


@dataclass(frozen=True)
class Frame:
    """A kline frame."""

    sent: int
    bar: Bar
    final: bool


def bar_of(time: int, fills: list[Fill], close_before: Decimal | None) -> Bar | None:
    """Return the bar that some fills make; flat at the close before without any, none without that."""
    if not fills:
        if close_before is None:
            return None
        return Bar(time, (*(close_before,) * 4, *(Decimal(0),) * 5), -1, -1)
    prices = [fill.price for fill in fills]
    bought = [fill for fill in fills if fill.taker_buy]
    sums = [
        sum((fill.quantity for fill in fills), Decimal(0)),
        sum((fill.quantity * fill.price for fill in fills), Decimal(0)),
        Decimal(len(fills)),
        sum((fill.quantity for fill in bought), Decimal(0)),
        sum((fill.quantity * fill.price for fill in bought), Decimal(0)),
    ]
    cells = (prices[0], max(prices), min(prices), prices[-1], *sums)
    return Bar(time, cells, fills[0].id, fills[-1].id)


@dataclass
class Taste:
    """What kind of market it is.

    Attributes:
        rate: Orders a second.
        sweep: Chance that an order fills once more (again and again).
        deep: Chance that the next fill of an order has another price.
        crossing: Chance that a minute ends inside a group.
        quiet: Chance that a minute has no orders (but for those at its ends).
        skip: Chance that a fill is followed by an id that is never used.
        decimals: Of prices and of quantities.
    """

    rate: float = 0.5
    sweep: float = 0.5
    deep: float = 0.3
    crossing: float = 0.4
    quiet: float = 0.2
    skip: float = 0.02
    decimals: tuple[int, int] = (2, 3)


@dataclass
class Market:
    """All fills of one symbol over some minutes, and everything that follows from them."""

    start: int
    minutes: int
    fills: list[Fill] = field(default_factory=list)

    @classmethod
    def made(cls, rng: random.Random, start: int, minutes: int, taste: Taste) -> Market:
        """Invent a market."""
        market = cls(start, minutes)
        orders = sorted(_orders(rng, start, minutes, taste))
        tick, lot = (Decimal(1).scaleb(-places) for places in taste.decimals)
        level, number = 10_000, rng.randrange(1, 10**9)
        for time, side, pinned in orders:
            level = max(100, level + (0 if pinned else rng.randint(-3, 3)))
            price, moment = level, time
            while True:
                quantity = lot * rng.randint(1, 5_000)
                market.fills.append(Fill(number, moment, tick * price, quantity, side))
                number += 2 if rng.random() < taste.skip else 1
                if pinned or rng.random() > taste.sweep:
                    break
                moment += rng.choice((0, 0, 0, 1))
                if rng.random() < taste.deep:
                    price += 1 if side else -1
            level = price
        market.fills.sort(key=lambda fill: fill.time)
        ids = sorted(fill.id for fill in market.fills)
        market.fills = [
            Fill(n, fill.time, fill.price, fill.quantity, fill.taker_buy)
            for n, fill in zip(ids, market.fills, strict=True)
        ]
        return market

    def of(self, time: int, length: int = MINUTE) -> list[Fill]:
        """Return the fills of a half-open stretch of time."""
        return [fill for fill in self.fills if time <= fill.time < time + length]

    def official(self, time: int, length: int = MINUTE) -> Bar | None:
        """Return the exchange's bar."""
        before = [fill for fill in self.fills if fill.time < time]
        return bar_of(time, self.of(time, length), before[-1].price if before else None)

    def groups(self, first_a: int = 1_000) -> list[Group]:
        """Return the aggregate trades."""
        parts: list[list[Fill]] = []
        for fill in self.fills:
            head = parts[-1][0] if parts else None
            if (
                head is not None
                and (fill.price, fill.taker_buy) == (head.price, head.taker_buy)
                and fill.time - head.time <= WINDOW_MS
            ):
                parts[-1].append(fill)
            else:
                parts.append([fill])
        groups = []
        for index, part in enumerate(parts):
            sent = part[0].time + FLUSH_MS
            if index + 1 < len(parts):
                sent = min(sent, parts[index + 1][0].time)
            groups.append(Group(first_a + index, tuple(part), sent))
        return groups

    def frames(self, rng: random.Random, *, empty_finals: bool = False) -> list[Frame]:
        """Return the kline frames."""
        frames: list[Frame] = []
        held: list[Fill] = []
        last_sent = 0
        for time in range(self.start, self.start + self.minutes * MINUTE, MINUTE):
            held = self.of(time)
            kept: list[Fill] = []
            for fill in held:
                kept.append(fill)
                leads = fill is held[0] and bool(frames) and not self._ended(time - MINUTE, fill.time)
                if leads or fill.time - last_sent < FRAME_GAP_MS:
                    continue
                bar = bar_of(time, kept, None)
                assert bar is not None
                last_sent = fill.time
                frames.append(Frame(fill.time + rng.randint(0, 7), bar, False))
            bar = self.official(time)
            if bar is None or (bar.count == 0 and not empty_finals):
                continue
            following = [fill.time for fill in self.fills if fill.time >= time + MINUTE]
            ended = min([time + MINUTE + FINAL_MS, *following[:1]])
            last_sent = ended
            frames.append(Frame(ended + rng.randint(0, 7), bar, True))
        return sorted(frames, key=lambda frame: frame.sent)

    def _ended(self, time: int, moment: int) -> bool:
        """Return whether a minute's final frame was sent before a moment."""
        return not self.of(time) or moment > time + MINUTE + FINAL_MS


def _orders(rng: random.Random, start: int, minutes: int, taste: Taste) -> list[tuple[int, bool, bool]]:
    """Return moment, side and whether it is one of several fills at one price, for every order."""
    orders: list[tuple[int, bool, bool]] = []
    side = True
    for index in range(minutes):
        time = start + index * MINUTE
        if rng.random() >= taste.quiet:
            moment = float(time)
            while True:
                moment += rng.expovariate(taste.rate) * 1000
                if moment >= time + MINUTE:
                    break
                side = rng.random() < 0.5
                orders.append((int(moment), side, False))
        if index + 1 < minutes and rng.random() < taste.crossing:
            side = rng.random() < 0.5
            first = time + MINUTE - rng.randint(1, 60)
            orders.append((first, side, True))
            for _ in range(rng.randint(1, 3)):
                orders.append((first + rng.randint(0, WINDOW_MS), side, True))
    return orders
