"""Shared pieces of the simulator's tests: recordings, markets, a naive candle."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from klshm.sim.bars import Fill
from klshm.sim.catalogue import catalogue
from klshm.sim.events import AggEvent, Event, KlineEvent, TradeEvent
from klshm.sim.market import Market, MarketOptions
from klshm.sim.symbols import SymbolSpec
from tests.support.processes import PROJECT


DATA = PROJECT / ".." / "shared" / "data"
#: Friday 2026-11-20 12:00:20 UTC.
START_MS = 1_795_176_020_000


def data(name: str) -> Path:
    """Return a recording's path; skip the test where the recordings are absent."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the recording {name} is not in {DATA}")
    return path


def specs(symbols: int = 12, rate: float = 100.0, seed: int = 1) -> list[SymbolSpec]:
    """Return a small listing."""
    return catalogue(seed, symbols, rate, START_MS, 60)


def run(
    options: MarketOptions | None = None, seconds: int = 200, symbols: int = 12, rate: float = 100.0
) -> tuple[Market, list[Event]]:
    """Drive a market at full speed through simulated seconds."""
    market = Market(specs(symbols, rate), START_MS, options or MarketOptions())
    return market, market.advance(START_MS + seconds * 1000)


def trades_of(events: list[Event]) -> dict[str, list[Fill]]:
    """Return the individual trades of the market by symbol, without forced ones."""
    found: dict[str, list[Fill]] = {}
    for event in events:
        if isinstance(event, TradeEvent) and event.fill.kind == "MARKET":
            found.setdefault(event.instrument.spec.symbol, []).append(event.fill)
    return found


def aggs_of(events: list[Event]) -> dict[str, list[AggEvent]]:
    """Return the aggTrades by symbol."""
    found: dict[str, list[AggEvent]] = {}
    for event in events:
        if isinstance(event, AggEvent):
            found.setdefault(event.instrument.spec.symbol, []).append(event)
    return found


def frames_of(events: list[Event], interval: str = "1m") -> dict[str, list[KlineEvent]]:
    """Return the kline frames of one interval by symbol."""
    found: dict[str, list[KlineEvent]] = {}
    for event in events:
        if isinstance(event, KlineEvent) and event.interval == interval:
            found.setdefault(event.instrument.spec.symbol, []).append(event)
    return found


def naive(fills: list[Fill], price_decimals: int, quantity_decimals: int) -> tuple[Decimal, ...]:
    """Recompute nine cells with Decimal: open, high, low, close, volume, quote, count, taker volume, taker quote."""
    prices = [Decimal(fill.price).scaleb(-price_decimals) for fill in fills]
    sizes = [Decimal(fill.quantity).scaleb(-quantity_decimals) for fill in fills]
    values = [price * size for price, size in zip(prices, sizes, strict=True)]
    takers = [fill.taker_buy for fill in fills]
    return (
        prices[0],
        max(prices),
        min(prices),
        prices[-1],
        sum(sizes, Decimal()),
        sum(values, Decimal()),
        Decimal(sum(fill.trades for fill in fills)),
        sum((size for size, buy in zip(sizes, takers, strict=True) if buy), Decimal()),
        sum((value for value, buy in zip(values, takers, strict=True) if buy), Decimal()),
    )


def nine(row: list[object] | list[str]) -> tuple[Decimal, ...]:
    """Return the nine cells of a REST or archive row in the order of `naive`."""
    return tuple(Decimal(str(row[place])) for place in (1, 2, 3, 4, 5, 7, 8, 9, 10))
