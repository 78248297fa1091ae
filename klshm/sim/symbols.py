"""What is known of one instrument: names, decimals, activity and dates."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from .intervals import DAY_MS, MINUTE_MS


__all__ = ["PERPETUAL_DELIVERY_MS", "Row", "SymbolSpec", "describe"]

PERPETUAL_DELIVERY_MS = 4_133_404_800_000

#: Base asset, price, price decimals, tick decimals, quantity decimals.
Row = tuple[str, float, int, int, int]


@dataclass(frozen=True, slots=True)
class SymbolSpec:
    """One instrument; prices and quantities elsewhere are integers in units of these decimals."""

    symbol: str
    base: str
    price_decimals: int
    tick: int
    """Price step in units of `price_decimals`."""
    quantity_decimals: int
    reference_price: int
    """Long-run price in units of `price_decimals`."""
    order_size: int
    """Typical quantity of one trade, in units."""
    quote: str = "USDT"
    pair: str = ""
    contract_type: str = "PERPETUAL"
    status: str = "TRADING"
    trades_per_s: float = 0.0
    rpi: bool = False
    onboard_ms: int = 0
    first_trade_ms: int = 0
    delivery_ms: int = PERPETUAL_DELIVERY_MS
    underlying: str = "COIN"
    calm: float = 1.0
    """Factor on the range of the generated history."""
    extra: bool = False
    """True for the odd rows that `--symbols` does not count."""
    listed: bool = True
    """False for what exchangeInfo does not show although klines serves it."""
    coin_margined: bool = False

    @property
    def key(self) -> int:
        """Return a stable number of the name."""
        return zlib.crc32(self.symbol.encode())


def describe(row: Row, rate: float, start_ms: int, age_days: float, delay_minutes: int) -> SymbolSpec:
    """Return a USDT perpetual.

    Args:
        rate: trades per second.
        start_ms: the simulator's first instant.
        age_days: how long before it the symbol was listed.
        delay_minutes: from the listing to the first trade.
    """
    base, price, price_decimals, tick_decimals, quantity_decimals = row
    tick = 10 ** (price_decimals - tick_decimals)
    onboard_ms = start_ms - int(age_days * DAY_MS)
    onboard_ms -= onboard_ms % (5 * MINUTE_MS)
    return SymbolSpec(
        symbol=f"{base}USDT",
        pair=f"{base}USDT",
        base=base,
        price_decimals=price_decimals,
        tick=tick,
        quantity_decimals=quantity_decimals,
        reference_price=max(1, round(price * 10**tick_decimals)) * tick,
        order_size=max(2, round(400.0 / price * 10**quantity_decimals)),
        trades_per_s=rate,
        onboard_ms=onboard_ms,
        first_trade_ms=min(onboard_ms + delay_minutes * MINUTE_MS, start_ms - start_ms % MINUTE_MS),
    )
