"""Trades that every engine gets alike: one minute of aggregate trades, activity by Zipf's law.

Ids continue without holes, so that an exact engine has nothing to doubt. The minute begins a week,
so that all intervals hold the same trades and one sum per symbol is the answer for each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from klshm.core.events import EVENT, SYMBOL_ADD, TICK, TRADE


__all__ = ["BEGIN_MS", "INTERVALS", "PRICE_DECIMALS", "QUANTITY_DECIMALS", "Trades", "names", "warm_up"]

Column = np.ndarray[Any, np.dtype[np.int64]]

BEGIN_MS: Final = 1_791_158_400_000
"""A Monday 00:00 UTC."""
INTERVALS: Final = ("1m", "5m", "30m", "4h", "1d", "1w")
PRICE_DECIMALS: Final = 2
QUANTITY_DECIMALS: Final = 3
_FIRST_A: Final = 1_000_001
_FIRST_ID: Final = 5_000_001
_SENT_AFTER_MS: Final = 3


def names(symbols: int) -> list[str]:
    """Return names of so many symbols, as an exchange spells them."""
    return [f"B{number:04d}USDT" for number in range(symbols)]


@dataclass(frozen=True)
class Trades:
    """Aggregate trades in the order they were sent, one array per field, all int64.

    Attributes:
        symbols: Number of symbols.
        slot: Whose trade, 0 to symbols - 1.
        a: Aggregate id, without holes per symbol.
        first: First trade id; ids are without holes per symbol.
        last: Last trade id.
        time_ms: Time of the first fill, UTC ms.
        price: Units of 10^-PRICE_DECIMALS.
        quantity: Units of 10^-QUANTITY_DECIMALS.
        is_maker: 1 where the buyer was the maker.
    """

    symbols: int
    slot: Column
    a: Column
    first: Column
    last: Column
    time_ms: Column
    price: Column
    quantity: Column
    is_maker: Column

    @classmethod
    def make(cls, count: int, symbols: int, spread_ms: int = 50_000, begin_ms: int = BEGIN_MS, seed: int = 1) -> Trades:
        """Return trades that are the same for the same arguments.

        Args:
            count: How many.
            symbols: Over how many symbols, Zipf exponent 1; each has at least one.
            spread_ms: Evenly over so long.
            begin_ms: From this moment on, UTC ms.
            seed: Of the generator.
        """
        rng = np.random.default_rng(seed)
        share = 1 / np.arange(1, symbols + 1)
        drawn = rng.choice(symbols, count - symbols, p=share / share.sum())
        slot = rng.permutation(np.concatenate((np.arange(symbols), drawn))).astype(np.int64)
        fills = rng.integers(1, 4, count)
        number, passed = _per_symbol(slot, np.ones(count, np.int64)), _per_symbol(slot, fills)
        steps = rng.integers(-3, 4, count)
        return cls(
            symbols=symbols,
            slot=slot,
            a=_FIRST_A + number,
            first=_FIRST_ID + passed - fills,
            last=_FIRST_ID + passed - 1,
            time_ms=begin_ms + 5 + np.arange(count) * spread_ms // count,
            price=10_000 + _per_symbol(slot, steps),
            quantity=rng.integers(1, 5_000, count),
            is_maker=rng.integers(0, 2, count),
        )

    def __len__(self) -> int:
        return len(self.slot)

    def head(self, count: int) -> Trades:
        """Return the first trades of these."""
        return Trades(self.symbols, *(getattr(self, name)[:count] for name in _COLUMNS))

    def events(self) -> np.ndarray[Any, Any]:
        """Return them as events of the engine."""
        events = np.zeros(len(self), dtype=EVENT)
        events["kind"], events["slot"] = TRADE, self.slot
        events["time"], events["open_time"] = self.time_ms + _SENT_AFTER_MS, self.time_ms
        events["flag"], events["a"], events["f"], events["l"] = self.is_maker, self.a, self.first, self.last
        events["price_decimals"], events["quantity_decimals"] = PRICE_DECIMALS, QUANTITY_DECIMALS
        events["open"], events["volume"] = self.price, self.quantity
        return events

    def answer(self) -> dict[str, Column]:
        """Return what every bar of each symbol must hold: units, shape (symbols,) each."""
        order = np.argsort(self.slot, kind="stable")
        starts = np.searchsorted(self.slot[order], np.arange(self.symbols))
        ends = np.append(starts[1:], len(order)) - 1
        price, quantity = self.price[order], self.quantity[order]
        return {
            "open": price[starts],
            "high": np.maximum.reduceat(price, starts),
            "low": np.minimum.reduceat(price, starts),
            "close": price[ends],
            "volume": np.add.reduceat(quantity, starts),
            "quote_volume": np.add.reduceat(price * quantity, starts),
            "trade_count": np.add.reduceat(self.last[order] - self.first[order] + 1, starts),
            "taker_buy_volume": np.add.reduceat(quantity * (1 - self.is_maker[order]), starts),
        }

    def payloads(self, kline_every_ms: int = 0, title: list[str] | None = None) -> list[bytes]:
        """Return the frames' payloads as the exchange writes them.

        Args:
            kline_every_ms: After so long each symbol that traded meanwhile gets its kline frame; 0: none.
            title: The symbols' names; None: those of `names`.
        """
        title, out = title or names(self.symbols), []
        lower = [name.lower() for name in title]
        frames = _KlineFrames(title)
        due_ms = int(self.time_ms[0]) + kline_every_ms
        columns = [getattr(self, name).tolist() for name in _COLUMNS]
        for slot, a, first, last, time_ms, price, quantity, maker in zip(*columns, strict=True):
            if kline_every_ms and time_ms >= due_ms:
                out += frames.take(due_ms)
                due_ms += kline_every_ms
            size = _decimal(quantity, QUANTITY_DECIMALS)
            out.append(
                f'{{"stream":"{lower[slot]}@aggTrade","data":{{"e":"aggTrade","E":{time_ms + _SENT_AFTER_MS},"a":{a},'
                f'"s":"{title[slot]}","p":"{_decimal(price, PRICE_DECIMALS)}","q":"{size}","nq":"{size}","f":{first},'
                f'"l":{last},"T":{time_ms},"m":{"true" if maker else "false"},"st":1}}}}'.encode()
            )
            if kline_every_ms:
                frames.add(slot, first, last, price, quantity, maker)
        return out


class _KlineFrames:
    """The official 1m bar of every symbol so far, and who traded since its last frame."""

    def __init__(self, title: list[str]) -> None:
        self._title = title
        self._bars: dict[int, list[int]] = {}
        self._traded: set[int] = set()

    def add(self, slot: int, first: int, last: int, price: int, quantity: int, maker: int) -> None:
        bar = self._bars.setdefault(slot, [first, last, price, price, price, price, 0, 0, 0, 0, 0])
        bar[1], bar[3], bar[4], bar[5] = last, max(bar[3], price), min(bar[4], price), price
        turnover, bought = price * quantity, 0 if maker else 1
        for at, add in enumerate((quantity, turnover, bought * quantity, bought * turnover, last - first + 1), 6):
            bar[at] += add
        self._traded.add(slot)

    def take(self, time_ms: int) -> list[bytes]:
        out = [self._payload(slot, self._bars[slot], time_ms) for slot in sorted(self._traded)]
        self._traded.clear()
        return out

    def _payload(self, slot: int, bar: list[int], time_ms: int) -> bytes:
        first, last, *prices = bar[:6]
        o, h, l, c = (_decimal(price, PRICE_DECIMALS) for price in prices)
        v, bought = (_decimal(bar[at], QUANTITY_DECIMALS) for at in (6, 8))
        q, bought_quote = (_decimal(bar[at], PRICE_DECIMALS + QUANTITY_DECIMALS) for at in (7, 9))
        minute, name = time_ms // 60_000 * 60_000, self._title[slot]
        data = (
            f'{{"e":"kline","E":{time_ms},"s":"{name}","k":{{"t":{minute},"T":{minute + 59_999},"s":"{name}","i":"1m",'
            f'"f":{first},"L":{last},"o":"{o}","c":"{c}","h":"{h}","l":"{l}","v":"{v}","n":{bar[10]},"x":false,'
            f'"q":"{q}","V":"{bought}","Q":"{bought_quote}","B":"0"}}}}'
        )
        return f'{{"stream":"{name.lower()}@kline_1m","data":{data}}}'.encode()


_COLUMNS: Final = ("slot", "a", "first", "last", "time_ms", "price", "quantity", "is_maker")


def warm_up(symbols: int, begin_ms: int = BEGIN_MS) -> list[tuple[np.ndarray[Any, Any], int]]:
    """Return batches of events, each with its time, after which an engine knows all symbols and their last ids.

    Args:
        symbols: How many join.
        begin_ms: Beginning of the minute that comes next, UTC ms.
    """
    every = np.arange(symbols)
    join = np.zeros(symbols, dtype=EVENT)
    join["kind"], join["slot"], join["l"], join["open_time"] = SYMBOL_ADD, every, every, begin_ms - 60_000
    join["price_decimals"], join["quantity_decimals"] = PRICE_DECIMALS, QUANTITY_DECIMALS
    first = np.zeros(symbols, dtype=EVENT)
    first["kind"], first["slot"], first["time"], first["open_time"] = TRADE, every, begin_ms - 900, begin_ms - 1000
    first["a"], first["f"], first["l"] = _FIRST_A, _FIRST_ID - 1, _FIRST_ID - 1
    first["price_decimals"], first["quantity_decimals"] = PRICE_DECIMALS, QUANTITY_DECIMALS
    first["open"], first["volume"] = 10_000, 1
    tick = np.zeros(1, dtype=EVENT)
    tick["kind"], tick["time"] = TICK, begin_ms
    return [(join, begin_ms - 2000), (first, begin_ms - 900), (tick, begin_ms + 1)]


def _per_symbol(slot: Column, values: Column) -> Column:
    """Return the running sum of values within each symbol, this one included."""
    order = np.argsort(slot, kind="stable")
    sums = np.cumsum(values[order])
    starts = np.flatnonzero(np.diff(slot[order], prepend=-1))
    before = sums[starts] - values[order][starts]
    result = np.empty_like(sums)
    result[order] = sums - np.repeat(before, np.diff(np.append(starts, len(slot))))
    return result


def _decimal(units: int, decimals: int) -> str:
    whole, rest = divmod(units, 10**decimals)
    return f"{whole}.{rest:0{decimals}d}"
