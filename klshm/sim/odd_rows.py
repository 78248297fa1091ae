"""Rows of the listing that an engine must survive rather than follow, and instruments that are no longer listed.

Both listings have: a quarterly, a USDC pair, a settled and a pending symbol, an unknown contract type, each with an
unknown filter; and, served by klines but not shown, a coin-margined contract and a delisted symbol. The full one adds
what the exchange had on 2026-10-07: 924 rows of which 789 are trading, every documented status and contract type, an
empty contract type, four quarterlies.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from .intervals import DAY_MS, MINUTE_MS
from .symbols import Row, SymbolSpec, describe


__all__ = ["FULL", "TRADIFI_KINDS", "odd_rows"]

FULL = "full"
TRADIFI_KINDS = ("EQUITY", "KR_EQUITY", "HK_EQUITY", "CN_EQUITY", "COMMODITY", "FX", "INDEX", "PREMARKET")

_HOUR_MS = 60 * MINUTE_MS
_RATE = 0.05
_STATUSES = ("PRE_DELIVERING", "DELIVERING", "DELIVERED", "PRE_SETTLE", "CLOSE")
_CONTRACT_TYPES = ("", "PERPETUAL_DELIVERING", "CURRENT_MONTH", "NEXT_MONTH")
# With the rows above: 924 of which 789 trading.
_SETTLED = 129
_USDC = 76


def odd_rows(known: list[Row], start_ms: int, history_days: int, *, full: bool) -> list[SymbolSpec]:
    """Return the odd rows.

    Args:
        known: well-known coins, for quarterlies and USDC pairs.
        start_ms: the simulator's first instant.
        history_days: age of the oldest listing.
    """

    def make(row: Row, **changes: object) -> SymbolSpec:
        spec = describe(row, _RATE, start_ms, history_days * 0.5, 5)
        return replace(spec, extra=True, **changes)  # type: ignore[arg-type]

    def small(name: str, **changes: object) -> SymbolSpec:
        return make((name, 0.28, 4, 4, 1), **changes)

    hour_ms = start_ms - start_ms % _HOUR_MS
    dead_ms, soon_ms = hour_ms - 30 * _HOUR_MS, hour_ms + 6 * _HOUR_MS
    btc, eth = known[0], known[1]
    rows = [
        make(btc, **_quarterly("BTC", start_ms, 0)),
        make(eth, **_usdc("ETH")),
        small("OMG", status="SETTLING", delivery_ms=dead_ms),
        small("SOON", status="PENDING_TRADING", onboard_ms=soon_ms, first_trade_ms=soon_ms),
        small("ODD", contract_type="PREDICTION_PERPETUAL"),
        # Not shown: klines serves coin-margined symbols too, and those that left the listing.
        make(
            ("BTC", 83_061.0, 1, 1, 0), symbol="BTCUSD_PERP", pair="BTCUSD", quote="USD", listed=False,
            coin_margined=True, trades_per_s=0.0,
        ),
        small("LUNA", status="SETTLING", delivery_ms=dead_ms, listed=False),
    ]  # fmt: skip
    if full:
        rows += [make(btc, **_quarterly("BTC", start_ms, 1))]
        rows += [make(eth, **_quarterly("ETH", start_ms, quarter)) for quarter in (0, 1)]
        rows += [small(name, **_usdc(name)) for name in (f"COIN{place}" for place in range(_USDC - 1))]
        rows += [small(f"OLD{place}", status="SETTLING", delivery_ms=dead_ms) for place in range(_SETTLED - 1)]
        rows += [small(f"ST{place}", status=status, delivery_ms=dead_ms) for place, status in enumerate(_STATUSES)]
        rows += [small(f"CT{place}", contract_type=kind) for place, kind in enumerate(_CONTRACT_TYPES)]
    return rows


def _usdc(base: str) -> dict[str, object]:
    return {"symbol": f"{base}USDC", "pair": f"{base}USDC", "quote": "USDC"}


def _quarterly(base: str, start_ms: int, quarter: int) -> dict[str, object]:
    """Return what makes a delivery contract of a perpetual; it settles at 08:00 UTC."""
    delivery_ms = start_ms - start_ms % DAY_MS + (40 + 91 * quarter) * DAY_MS + 8 * _HOUR_MS
    day = datetime.fromtimestamp(delivery_ms // 1000, UTC).strftime("%y%m%d")
    kind = ("CURRENT_QUARTER", "NEXT_QUARTER")[quarter]
    return {"symbol": f"{base}USDT_{day}", "contract_type": kind, "delivery_ms": delivery_ms}
