"""Listings and delistings as the exchange goes about them: announced, repeated, a little late, and in the end gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .faults import Parameters, UnknownFault
from .instrument import Instrument
from .market import Market
from .symbols import PERPETUAL_DELIVERY_MS, SymbolSpec


__all__ = ["Listings"]

#: Status changes come so much after the announced time.
_FLIP_MS = 300
_REMINDER_MS = 5_000


class Listings:
    """What changes the listing: the calendar of the catalogue, and faults.

    Args:
        listed: called with each new instrument.
    """

    def __init__(self, market: Market, listed: Callable[[Instrument], None]) -> None:
        self._market = market
        self._listed = listed

    def plan(self, specs: list[SymbolSpec]) -> None:
        """Let pending symbols begin and delivery contracts end at their time."""
        for spec in specs:
            if spec.status == "PENDING_TRADING":
                self._announce(spec, _FLIP_MS)
            elif spec.status == "TRADING" and spec.delivery_ms < PERPETUAL_DELIVERY_MS:
                self._market.schedule_status(spec.delivery_ms, spec.symbol, "SETTLING")

    # Faults

    def list_symbol(self, parameters: Parameters, now_ms: int) -> object:
        """List a new perpetual, or one again that has left exchangeInfo."""
        instruments = self._market.instruments
        symbol = parameters["symbol"].upper() or f"NEW{len(instruments)}USDT"
        if symbol in instruments and instruments[symbol].listed:
            raise UnknownFault(f"found symbol {symbol} listed already, expected a new name")
        onboard_ms = now_ms + int(parameters["delay_s"] * 1000)
        spec = SymbolSpec(
            symbol=symbol,
            base=symbol.removesuffix("USDT"),
            price_decimals=5,
            tick=1,
            quantity_decimals=0,
            reference_price=123_450,
            order_size=300,
            pair=symbol,
            contract_type=parameters["contract_type"],
            status="PENDING_TRADING",
            trades_per_s=float(parameters["trades_per_s"]),
            onboard_ms=onboard_ms,
            first_trade_ms=onboard_ms + int(parameters["flip_ms"]) + 500,
        )
        self._listed(self._market.list_symbol(spec))
        self._market.schedule_status(now_ms, symbol, "PENDING_TRADING")
        self._announce(spec, int(parameters["flip_ms"]))
        return {"symbol": symbol, "onboard_ms": onboard_ms}

    def delist_symbol(self, parameters: Parameters, now_ms: int) -> object:
        """End a symbol's trading at an announced time."""
        instrument = self._find(parameters["symbol"])
        symbol, market = instrument.spec.symbol, self._market
        delivery_ms = now_ms + int(parameters["delay_s"] * 1000)
        instrument.spec = replace(instrument.spec, delivery_ms=delivery_ms)
        market.version += 1
        market.schedule_status(now_ms, symbol, instrument.status, change=False)
        market.schedule_status(delivery_ms, symbol, parameters["status"])
        if parameters["vanish_s"] >= 0:
            market.schedule_removal(delivery_ms + int(parameters["vanish_s"] * 1000), symbol)
        return {"symbol": symbol, "delivery_ms": delivery_ms}

    def brackets(self, parameters: Parameters, now_ms: int) -> object:
        """Tell new brackets of a symbol."""
        instrument = self._find(parameters["symbol"])
        symbol = instrument.spec.symbol
        self._market.schedule_status(now_ms, symbol, instrument.status, change=False, brackets=True)
        return {"symbol": symbol}

    def _announce(self, spec: SymbolSpec, flip_ms: int) -> None:
        # Recorded listings repeat the announcement, once with brackets, some even after the onboardDate.
        again_ms = spec.onboard_ms - _REMINDER_MS
        schedule = self._market.schedule_status
        schedule(again_ms, spec.symbol, "PENDING_TRADING", change=False)
        schedule(again_ms, spec.symbol, "PENDING_TRADING", change=False, brackets=True)
        if flip_ms > 2 * _FLIP_MS:
            schedule(spec.onboard_ms + flip_ms // 2, spec.symbol, "PENDING_TRADING", change=False)
        schedule(spec.onboard_ms + flip_ms, spec.symbol, "TRADING")

    def _find(self, name: str) -> Instrument:
        market = self._market
        if not name:
            trading = [i for i in market.instruments.values() if i.status == "TRADING" and not i.spec.extra]
            name = trading[len(trading) // 2].spec.symbol if trading else ""
        found = market.instruments.get(name.upper())
        if found is None:
            raise UnknownFault(f"found no symbol {name!r}, expected a listed one")
        return found
