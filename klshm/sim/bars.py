"""A bar in exact integers: prices, quantities and quotes in units of the symbol's decimals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


__all__ = ["Bar", "Fill", "fold"]


class Fill(NamedTuple):
    """One individual trade, or one recorded aggTrade when `agg_id` >= 0.

    A trade that is not of the kind MARKET (ADL, INSURANCE_FUND) takes an id and is told on `@trade`, nowhere else.
    """

    time_ms: int
    first_id: int
    last_id: int
    trades: int
    price: int
    quantity: int
    rpi_quantity: int
    taker_buy: bool
    agg_id: int
    kind: str = "MARKET"


class Bar:
    """Nine cells and the trade ids of one interval; `count` 0 means flat at the previous close.

    `first_id` and `last_id` are -1 while no trade id is known.
    """

    __slots__ = (
        "open_time", "open", "high", "low", "close", "volume", "quote", "count",
        "taker_volume", "taker_quote", "first_id", "last_id",
    )  # fmt: skip

    def __init__(self, open_time: int, price: int) -> None:
        self.open_time = open_time
        self.open = self.high = self.low = self.close = price
        self.volume = self.quote = self.count = self.taker_volume = self.taker_quote = 0
        self.first_id = self.last_id = -1

    def add(self, fill: Fill) -> None:
        """Apply one trade."""
        price, quantity = fill.price, fill.quantity
        if self.count == 0:
            self.open = self.high = self.low = price
            self.first_id = fill.first_id
        elif price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.close = price
        self.last_id = fill.last_id
        self.count += fill.trades
        self.volume += quantity
        value = price * quantity
        self.quote += value
        if fill.taker_buy:
            self.taker_volume += quantity
            self.taker_quote += value

    def append(self, other: Bar) -> None:
        """Extend this bar by the one that follows it; an empty one adds nothing."""
        if other.count == 0:
            return
        if self.count == 0:
            self.open, self.high, self.low = other.open, other.high, other.low
            self.first_id = other.first_id
        else:
            self.high = max(self.high, other.high)
            self.low = min(self.low, other.low)
        self.close = other.close
        self.last_id = other.last_id
        self.count += other.count
        self.volume += other.volume
        self.quote += other.quote
        self.taker_volume += other.taker_volume
        self.taker_quote += other.taker_quote

    def copy(self) -> Bar:
        """Return an independent copy."""
        twin = Bar(self.open_time, self.open)
        twin.high, twin.low, twin.close = self.high, self.low, self.close
        twin.volume, twin.quote, twin.count = self.volume, self.quote, self.count
        twin.taker_volume, twin.taker_quote = self.taker_volume, self.taker_quote
        twin.first_id, twin.last_id = self.first_id, self.last_id
        return twin

    def cells(self) -> tuple[int, ...]:
        """Return open, high, low, close, volume, quote, count, taker volume, taker quote."""
        return (
            self.open, self.high, self.low, self.close, self.volume, self.quote, self.count,
            self.taker_volume, self.taker_quote,
        )  # fmt: skip


def fold(open_time: int, bars: Iterable[Bar]) -> Bar:
    """Fold consecutive bars into one; all empty: flat at the first one's price.

    Raises:
        ValueError: there is nothing to fold.
    """
    result: Bar | None = None
    for bar in bars:
        if result is None:
            result = bar.copy()
            result.open_time = open_time
        else:
            result.append(bar)
    if result is None:
        raise ValueError("found no bar to fold, expected at least one")
    return result
