"""An old minute turns out different: its column of six intervals is derived anew and published.

An hour of 150 symbols has closed; then the exchange's own rows of minutes that have left the records
come one by one, each with one unit more volume than the trades had. One call of the engine each: the
minute and its closed 5m and 30m bars are logged and stored, the open 4h, 1d and 1w are written.
"""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np

from bench.micro.kernel import filled_engine, live_rows
from bench.support.figures import print_figures
from bench.support.market import BEGIN_MS, PRICE_DECIMALS, QUANTITY_DECIMALS
from klshm.core.engine import Engine
from klshm.core.events import EVENT, REST_ROW, SETTLE, TICK, TRADE


__all__ = ["measure"]

_SYMBOLS: Final = 150
_MINUTES: Final = 60
_YOUNG: Final = 10
"""So many of the newest minutes are left alone."""
_MINUTE_MS: Final = 60_000
_FIRST_A: Final = 1_000_002
_FIRST_ID: Final = 5_000_001
_PRICE: Final = 10_000
_QUANTITY: Final = 2_000


def measure(quick: bool) -> dict[str, float]:
    """Return microseconds per amendment, alone and in batches of 50.

    Args:
        quick: Fewer symbols are amended.
    """
    alone, together = _closed_hour(), _closed_hour()
    rows = [_official(slot) for slot in range(_SYMBOLS // 3 if quick else _SYMBOLS)]
    now_ms = BEGIN_MS + (_MINUTES + 1) * _MINUTE_MS
    single_ns = [_applied_ns(alone, mine[at : at + 1], now_ms) for mine in rows for at in range(len(mine))]
    batch_ns = [_applied_ns(together, mine, now_ms) / len(mine) for mine in rows]
    for engine in (alone, together):
        _check(engine, len(rows))
    return {"alone_us": float(np.median(single_ns)) / 1000, "batch_us": float(np.median(batch_ns)) / 1000}


def _closed_hour() -> Engine:
    engine = filled_engine(_SYMBOLS)
    every = np.arange(_SYMBOLS)
    for minute in range(_MINUTES):
        trades = np.zeros(_SYMBOLS, dtype=EVENT)
        trades["kind"], trades["slot"] = TRADE, every
        trades["open_time"] = BEGIN_MS + minute * _MINUTE_MS + 30_000
        trades["time"] = trades["open_time"] + 3
        trades["a"], trades["f"], trades["l"] = _FIRST_A + minute, _FIRST_ID + minute, _FIRST_ID + minute
        trades["price_decimals"], trades["quantity_decimals"] = PRICE_DECIMALS, QUANTITY_DECIMALS
        trades["open"], trades["volume"] = _PRICE, _QUANTITY
        engine.apply(trades, int(trades["time"][0]))
        end_ms = BEGIN_MS + (minute + 1) * _MINUTE_MS
        for kind, field, after_ms in ((TICK, "time", 1), (SETTLE, "open_time", 400)):
            event = np.zeros(1, dtype=EVENT)
            event["kind"], event[field] = kind, end_ms
            engine.apply(event, end_ms + after_ms)
    return engine


def _official(slot: int) -> np.ndarray[Any, Any]:
    """Return the exchange's rows of a symbol's old minutes, each a unit larger than its trade."""
    rows = np.zeros(_MINUTES - _YOUNG, dtype=EVENT)
    rows["kind"], rows["slot"] = REST_ROW, slot
    rows["open_time"] = BEGIN_MS + np.arange(len(rows)) * _MINUTE_MS
    rows["time"] = BEGIN_MS + (_MINUTES + 1) * _MINUTE_MS
    rows["price_decimals"], rows["quantity_decimals"] = PRICE_DECIMALS, QUANTITY_DECIMALS
    rows["quote_decimals"] = PRICE_DECIMALS + QUANTITY_DECIMALS
    for name in ("open", "high", "low", "close"):
        rows[name] = _PRICE
    rows["volume"] = rows["taker_buy_volume"] = _QUANTITY + 1
    rows["quote_volume"] = rows["taker_buy_quote_volume"] = (_QUANTITY + 1) * _PRICE
    rows["trade_count"] = 1
    return rows


def _applied_ns(engine: Engine, events: np.ndarray[Any, Any], now_ms: int) -> int:
    began_ns = time.perf_counter_ns()
    engine.apply(events, now_ms)
    return time.perf_counter_ns() - began_ns


def _check(engine: Engine, amended: int) -> None:
    """Compare the open 1w bars with what the amended minutes add up to."""
    volume = live_rows(engine)["volume"][:amended, -1] * 10**QUANTITY_DECIMALS
    expected = _MINUTES * _QUANTITY + _MINUTES - _YOUNG
    if not np.allclose(volume, expected, rtol=0, atol=0.01):
        raise AssertionError(f"the open week holds {volume[0]:.0f} units, expected {expected}")


if __name__ == "__main__":
    print_figures(measure)
