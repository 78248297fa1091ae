"""The listed instruments: realistic names, decimals and activity, all from the seed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from .intervals import DAY_MS, MINUTE_MS


__all__ = ["PERPETUAL_DELIVERY_MS", "SymbolSpec", "catalogue"]

PERPETUAL_DELIVERY_MS = 4_133_404_800_000


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

    @property
    def key(self) -> int:
        """Return a stable number of the name."""
        return zlib.crc32(self.symbol.encode())


# name, price, price decimals, tick decimals, quantity decimals
_KNOWN: list[tuple[str, float, int, int, int]] = [
    ("BTC", 83_090.0, 2, 1, 3), ("ETH", 2_905.0, 2, 2, 3), ("SOL", 142.0, 4, 2, 2), ("XRP", 2.2, 4, 4, 1),
    ("DOGE", 0.165, 6, 5, 0), ("XAU", 4_105.0, 2, 2, 3), ("BNB", 861.0, 3, 2, 2), ("币安人生", 0.1312, 6, 5, 0),
    ("1000PEPE", 0.0052311, 7, 7, 0), ("ADA", 0.51, 5, 4, 0), ("AVAX", 15.4, 4, 3, 0), ("LINK", 13.9, 3, 3, 2),
    ("SUI", 1.72, 6, 4, 1), ("LTC", 92.4, 2, 2, 3), ("BCH", 512.0, 2, 2, 3), ("TRX", 0.282, 5, 5, 0),
    ("DOT", 2.71, 3, 3, 1), ("NEAR", 2.33, 4, 3, 0), ("APT", 3.05, 5, 4, 1), ("ARB", 0.223, 6, 5, 1),
    ("OP", 0.341, 7, 6, 1), ("FIL", 1.67, 3, 3, 1), ("ATOM", 2.55, 3, 3, 2), ("UNI", 7.1, 4, 3, 0),
    ("AAVE", 181.0, 3, 2, 1), ("INJ", 6.2, 6, 3, 1), ("HBAR", 0.151, 5, 5, 0), ("ETC", 14.9, 3, 3, 2),
    ("XLM", 0.254, 5, 5, 0), ("WLD", 0.71, 7, 4, 0), ("TIA", 0.66, 7, 4, 0), ("SEI", 0.153, 7, 4, 0),
    ("TON", 1.61, 7, 4, 1), ("ENA", 0.287, 7, 4, 0), ("ALGO", 0.152, 4, 4, 1), ("CRV", 0.41, 3, 3, 1),
    ("LDO", 0.74, 6, 4, 0), ("1000SHIB", 0.0085, 6, 6, 0), ("ICP", 5.4, 3, 3, 0), ("THETA", 0.42, 4, 4, 1),
]  # fmt: skip
_TRADIFI = {"XAU": "COMMODITY"}
_SYLLABLES = ("AR", "BO", "CET", "DA", "EL", "FU", "GRI", "HY", "IX", "JO", "KAR", "LU", "MO", "NEX", "ORB", "PY")


def catalogue(seed: int, symbols: int, rate: float, start_ms: int, history_days: int) -> list[SymbolSpec]:
    """Return `symbols` trading USDT perpetuals, most active first, and the odd rows after them.

    Args:
        rate: trades per second over all trading symbols.
        start_ms: the simulator's first instant; listing dates lie before it.
        history_days: age of the oldest listing.
    """
    rng = np.random.default_rng([seed, 7])
    rates = _rates(symbols, rate)
    specs: list[SymbolSpec] = []
    for rank, row in enumerate(_rows(symbols, rng)):
        if row[0] in ("BTC", "ETH"):
            age_days = float(history_days)
        elif rank % 11 == 10:
            age_days = min(1.0 + 3.0 * float(rng.random()), history_days)
        else:
            age_days = history_days * (0.25 + 0.75 * float(rng.random()))
        spec = _spec(row, rates[rank], start_ms, age_days, int(rng.integers(2, 16)))
        if row[0] in _TRADIFI:
            spec = replace(spec, contract_type="TRADIFI_PERPETUAL", underlying=_TRADIFI[row[0]])
        specs.append(replace(spec, rpi=rank % 3 == 1))
    return specs + _odd_rows(start_ms, history_days)


def _rates(symbols: int, rate: float) -> list[float]:
    weights = [1.0 / (rank + 1) ** 1.2 for rank in range(symbols)]
    quiet = symbols // 8 if symbols >= 8 else 0
    busy = symbols - quiet
    total = sum(weights[:busy])
    rates = [rate * weight / total for weight in weights[:busy]]
    # The tail of the real exchange trades less than once a minute: 0.8 down to 0.1 a minute here.
    rates += [0.8 / 60 / (1 + 7 * place / max(1, quiet - 1)) for place in range(quiet)]
    return rates


def _rows(symbols: int, rng: np.random.Generator) -> list[tuple[str, float, int, int, int]]:
    rows = _KNOWN[:symbols]
    taken = {row[0] for row in rows}
    while len(rows) < symbols:
        name = "".join(rng.choice(_SYLLABLES) for _ in range(int(rng.integers(2, 4))))
        name = name if name not in taken else f"{name}{len(rows)}"
        taken.add(name)
        price = float(np.exp(rng.uniform(np.log(0.01), np.log(300.0))))
        tick_decimals = int(np.clip(4 - np.floor(np.log10(price)) - 1, 2, 6))
        rows.append((name, price, tick_decimals + int(rng.integers(0, 2)), tick_decimals, 0 if price < 1 else 1))
    return rows


def _spec(
    row: tuple[str, float, int, int, int], rate: float, start_ms: int, age_days: float, delay_minutes: int
) -> SymbolSpec:
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


def _odd_rows(start_ms: int, history_days: int) -> list[SymbolSpec]:
    def make(row: tuple[str, float, int, int, int], rate: float) -> SymbolSpec:
        return replace(_spec(row, rate, start_ms, history_days * 0.5, 5), extra=True)

    btc, eth = _KNOWN[0], _KNOWN[1]
    hour_ms = 60 * MINUTE_MS
    delivery_ms = start_ms - start_ms % DAY_MS + 40 * DAY_MS + 8 * hour_ms
    dead_ms = start_ms - start_ms % hour_ms - 30 * hour_ms
    soon_ms = start_ms - start_ms % hour_ms + 6 * hour_ms
    quarter = f"BTCUSDT_{_yymmdd(delivery_ms)}"
    return [
        replace(make(btc, 0.2), symbol=quarter, contract_type="CURRENT_QUARTER", delivery_ms=delivery_ms),
        replace(make(eth, 0.2), symbol="ETHUSDC", pair="ETHUSDC", quote="USDC"),
        replace(make(("OMG", 0.28, 4, 4, 1), 0.05), status="SETTLING", delivery_ms=dead_ms),
        replace(
            make(("SOON", 0.5, 5, 5, 0), 0.05), status="PENDING_TRADING", onboard_ms=soon_ms, first_trade_ms=soon_ms
        ),
        replace(make(("ODD", 1.5, 4, 4, 1), 0.05), contract_type="PREDICTION_PERPETUAL"),
    ]


def _yymmdd(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%y%m%d")
