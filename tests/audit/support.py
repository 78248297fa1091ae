"""An archive filled from the simulator, as the engine would fill it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from klshm.config import StoreConfig
from klshm.exchange.models import RestKline
from klshm.historian.rows import kline_rows
from klshm.store.archive import Archive
from klshm.store.batch import Batch, Listing
from tests.support.exchange import Exchange


def rows_of(market: Exchange, symbol: str, interval: str, limit: int) -> Any:
    """Return the exchange's newest closed rows as records."""
    now_ms = market.now_ms()
    answer = market.get(f"/fapi/v1/klines?symbol={symbol}&interval={interval}&limit={limit + 1}")
    raw = [RestKline(*row[:11]) for row in answer if row[6] < now_ms]
    return kline_rows(raw, interval, slot=0, price_decimals=2, quantity_decimals=3, sent_ms=now_ms)


def fill(path: Path, symbol: str, *rows: Any) -> None:
    """Store rows of one symbol."""
    archive = Archive(path, StoreConfig())
    try:
        for batch in rows:
            archive.write(Batch((Listing(symbol),), batch), official=True)
    finally:
        archive.close()
