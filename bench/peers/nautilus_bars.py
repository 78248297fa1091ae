"""nautilus_trader: a TimeBarAggregator per symbol and interval, fed tick by tick; ticks are made before.

Each interval has a clock of its own, so that its bars can be ended by one step of time.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
from nautilus_trader.common.component import TestClock
from nautilus_trader.data.aggregation import TimeBarAggregator
from nautilus_trader.model.currencies import BTC, USDT
from nautilus_trader.model.data import BarType, TradeTick
from nautilus_trader.model.enums import AggressorSide
from nautilus_trader.model.identifiers import InstrumentId, Symbol, TradeId
from nautilus_trader.model.instruments import CryptoPerpetual
from nautilus_trader.model.objects import Price, Quantity

from bench.peers.given import INTERVALS, Bars, Given, run


_SPECIFICATIONS = {
    "1m": "1-MINUTE",
    "5m": "5-MINUTE",
    "30m": "30-MINUTE",
    "4h": "4-HOUR",
    "1d": "1-DAY",
    "1w": "1-WEEK",
}


def prepare(given: Given) -> Callable[[], Callable[[], Bars]]:
    """Make ticks, clocks and aggregators."""
    instruments = [_instrument(f"B{slot:04d}") for slot in range(given.symbols)]
    ticks = _ticks(given, instruments)
    clocks = {name: TestClock() for name in INTERVALS}
    ended: dict[str, list[Any]] = {name: [] for name in INTERVALS}
    for clock in clocks.values():
        clock.set_time(given.begin_ms * 1_000_000)
    aggregators = [
        [
            TimeBarAggregator(
                instrument, BarType.from_str(f"{instrument.id}-{text}-LAST-INTERNAL"), ended[name].append, clocks[name]
            )
            for name, text in _SPECIFICATIONS.items()
        ]
        for instrument in instruments
    ]
    pairs = list(zip(given.slot.tolist(), ticks, strict=True))

    def work() -> Callable[[], Bars]:
        for slot, tick in pairs:
            for aggregator in aggregators[slot]:
                aggregator.handle_trade_tick(tick)
        return bars_of

    def bars_of() -> Bars:
        for name, clock in clocks.items():
            for event in clock.advance_time((given.begin_ms + INTERVALS[name]) * 1_000_000):
                event.handle()
        return {name: _cells(bars) for name, bars in ended.items()}

    return work


def _cells(bars: list[Any]) -> Any:
    bars = sorted(bars, key=lambda bar: str(bar.bar_type))
    return np.array(
        [[float(getattr(bar, cell)) for cell in ("open", "high", "low", "close", "volume")] for bar in bars]
    )


def _ticks(given: Given, instruments: list[Any]) -> list[Any]:
    trade_id = TradeId("1")
    columns = (given.slot, given.time_ms, given.price, given.quantity)
    return [
        TradeTick(
            instruments[slot].id,
            Price(price, 2),
            Quantity(quantity, 3),
            AggressorSide.BUYER,
            trade_id,
            time_ms * 1_000_000,
            time_ms * 1_000_000,
        )
        for slot, time_ms, price, quantity in zip(*(column.tolist() for column in columns), strict=True)
    ]


def _instrument(name: str) -> Any:
    return CryptoPerpetual(
        instrument_id=InstrumentId.from_str(f"{name}.SIM"),
        raw_symbol=Symbol(name),
        base_currency=BTC,
        quote_currency=USDT,
        settlement_currency=USDT,
        is_inverse=False,
        price_precision=2,
        price_increment=Price.from_str("0.01"),
        size_precision=3,
        size_increment=Quantity.from_str("0.001"),
        max_quantity=None,
        min_quantity=None,
        max_notional=None,
        min_notional=None,
        max_price=None,
        min_price=None,
        margin_init=Decimal(0),
        margin_maint=Decimal(0),
        maker_fee=Decimal(0),
        taker_fee=Decimal(0),
        ts_event=0,
        ts_init=0,
    )


if __name__ == "__main__":
    run("nautilus_trader", prepare)
