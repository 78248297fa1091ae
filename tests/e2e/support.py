"""The exchange's word against the archive's."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from klshm import intervals
from tests.support.engine import Engine
from tests.support.exchange import Exchange
from tests.support.processes import wait_for
from tests.support.segments import INTERVALS


@dataclass
class Comparison:
    """What the archive says against what the exchange says."""

    compared: int = 0
    equal: int = 0
    confirmed: int = 0
    missing: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    per_interval: dict[str, int] = field(default_factory=dict)


def compare(market: Exchange, archive: Path, symbols: list[str], first_ms: int, end_ms: int) -> Comparison:
    """Compare every bar that closed in a span, in nine fields, with the exchange's own.

    Args:
        market: The simulator, still running.
        archive: The SQLite archive.
        symbols: Symbols to compare.
        first_ms: Bars that closed after this exchange time.
        end_ms: Bars that had closed by this exchange time.
    """
    result = Comparison()
    with sqlite3.connect(f"file:{archive}?mode=ro", uri=True) as database:
        series = database.execute("SELECT symbol, interval, table_name FROM series")
        tables = {(symbol, interval): name for symbol, interval, name in series}
        for symbol in symbols:
            for interval in INTERVALS:
                rows = market.get("/fapi/v1/klines", symbol=symbol, interval=interval, limit=99)
                length = intervals.length_ms(interval)
                for row in rows:
                    if first_ms < row[0] + length <= end_ms:
                        _compare_row(result, database, tables.get((symbol, interval)), symbol, interval, row)
    return result


def wait_equal(market: Exchange, engine: Engine, symbols: list[str], end_ms: int) -> None:
    """Wait until the archive has every bar that had closed by an exchange time, equal to the exchange's own."""

    def judged() -> bool:
        found = compare(market, engine.archive, symbols, market.start_ms, end_ms)
        return found.equal == found.compared

    wait_for(lambda: market.now_ms() > end_ms and judged(), explain=engine.text)


def _compare_row(
    result: Comparison, database: sqlite3.Connection, table: str | None, symbol: str, interval: str, row: list[Any]
) -> None:
    result.compared += 1
    result.per_interval[interval] = result.per_interval.get(interval, 0) + 1
    found = None
    if table is not None:
        found = database.execute(
            f'SELECT open, high, low, close, volume, quote_volume, trade_count, taker_buy_volume, '
            f'taker_buy_quote_volume, state, flags FROM "{table}" WHERE open_time = ?',
            (row[0],),
        ).fetchone()
    if found is None:
        result.missing.append(f"{symbol} {interval} {row[0]}")
        return
    wanted = (*map(float, row[1:6]), float(row[7]), row[8], float(row[9]), float(row[10]))
    if found[:9] == wanted:
        result.equal += 1
    else:
        result.different.append(f"{symbol} {interval} {row[0]}: archive {found}, exchange {wanted}")
    result.confirmed += found[9] == 3


def trading_symbols(market: Exchange) -> list[str]:
    """Return the symbols the engine takes by default."""
    return [
        row["symbol"]
        for row in market.get("/fapi/v1/exchangeInfo")["symbols"]
        if row["status"] == "TRADING"
        and row["contractType"] in ("PERPETUAL", "TRADIFI_PERPETUAL")
        and row["quoteAsset"] == "USDT"
    ]
