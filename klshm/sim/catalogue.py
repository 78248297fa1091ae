"""The listed instruments: realistic names, decimals and activity, all from the seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .odd_rows import FULL, TRADIFI_KINDS, odd_rows
from .symbols import Row, SymbolSpec, describe


__all__ = ["DEFAULT_SYMBOLS", "catalogue"]

#: Trading USDT perpetuals by kind of listing, if the command line does not say.
DEFAULT_SYMBOLS = {"compact": 40, FULL: 704}

_KNOWN: list[Row] = [
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
# Names of the full listing that a client may stumble over: Chinese ones, a leading digit, 17 characters.
_AWKWARD: list[Row] = [
    ("龙虾", 0.0213, 6, 5, 0), ("客服小何", 0.0131, 7, 6, 0), ("我踏马来了", 0.0067, 7, 6, 0),
    ("雪球", 0.0911, 6, 5, 0), ("4", 0.0182, 6, 5, 0), ("100000BABYCAT", 0.0011, 7, 7, 0),
]  # fmt: skip
_SYLLABLES = ("AR", "BO", "CET", "DA", "EL", "FU", "GRI", "HY", "IX", "JO", "KAR", "LU", "MO", "NEX", "ORB", "PY")
# Of the exchange's 704 trading USDT perpetuals 180 are on stocks, metals and currencies.
_TRADIFI_SHARE = 180 / 704


def catalogue(
    seed: int, symbols: int, rate: float, start_ms: int, history_days: int, listing: str = "compact"
) -> list[SymbolSpec]:
    """Return `symbols` trading USDT perpetuals, most active first, and the odd rows after them.

    Args:
        rate: trades per second over all trading symbols.
        start_ms: the simulator's first instant; listing dates lie before it.
        history_days: age of the oldest listing.
        listing: `compact`, or `full`: as many odd rows and stock perpetuals as the exchange has.
    """
    rng = np.random.default_rng([seed, 7])
    rates = _rates(symbols, rate)
    known = _KNOWN + _AWKWARD if listing == FULL else _KNOWN
    specs: list[SymbolSpec] = []
    for rank, row in enumerate(_rows(known, symbols, rng)):
        if row[0] in ("BTC", "ETH"):
            age_days = float(history_days)
        elif rank % 11 == 10:
            age_days = min(1.0 + 3.0 * float(rng.random()), history_days)
        else:
            age_days = history_days * (0.25 + 0.75 * float(rng.random()))
        spec = describe(row, rates[rank], start_ms, age_days, int(rng.integers(2, 16)))
        underlying = _underlying(row[0], rank, listing == FULL and rank >= len(known))
        if underlying:
            spec = replace(spec, contract_type="TRADIFI_PERPETUAL", underlying=underlying)
        specs.append(replace(spec, rpi=rank % 3 == 1))
    return specs + odd_rows(known, start_ms, history_days, full=listing == FULL)


def _underlying(base: str, rank: int, generated: bool) -> str:
    """Return what a TradFi perpetual is on; the empty string for a coin."""
    if base == "XAU":
        return "COMMODITY"
    before, after = int(rank * _TRADIFI_SHARE), int((rank + 1) * _TRADIFI_SHARE)
    return TRADIFI_KINDS[after % len(TRADIFI_KINDS)] if generated and after > before else ""


def _rates(symbols: int, rate: float) -> list[float]:
    weights = [1.0 / (rank + 1) ** 1.2 for rank in range(symbols)]
    quiet = symbols // 8 if symbols >= 8 else 0
    busy = symbols - quiet
    total = sum(weights[:busy])
    rates = [rate * weight / total for weight in weights[:busy]]
    # The tail of the real exchange trades less than once a minute: 0.8 down to 0.1 a minute here.
    rates += [0.8 / 60 / (1 + 7 * place / max(1, quiet - 1)) for place in range(quiet)]
    return rates


def _rows(known: list[Row], symbols: int, rng: np.random.Generator) -> list[Row]:
    rows = known[:symbols]
    taken = {row[0] for row in rows}
    while len(rows) < symbols:
        name = "".join(rng.choice(_SYLLABLES) for _ in range(int(rng.integers(2, 4))))
        name = name if name not in taken else f"{name}{len(rows)}"
        taken.add(name)
        price = float(np.exp(rng.uniform(np.log(0.01), np.log(300.0))))
        tick_decimals = int(np.clip(4 - np.floor(np.log10(price)) - 1, 2, 6))
        rows.append((name, price, tick_decimals + int(rng.integers(0, 2)), tick_decimals, 0 if price < 1 else 1))
    return rows
