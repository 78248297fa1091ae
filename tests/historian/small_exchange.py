"""A small exchange for the data service: time, contracts and klines of made-up symbols, all to be spoilt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from klshm.config import Config, ExchangeConfig, HistorianConfig
from klshm.historian.alone import Outcome, Wish, fetch_history
from klshm.store.archive_reader import ArchiveReader
from tests.historian.support import KlineServer
from tests.support.servers import http_server


M = 60_000
START = 1_795_000_000_000 // (60 * M) * (60 * M) + 17 * M + 40_000
"""Exchange time at first: no bar ended within the last half minute."""
DEPTH = 30
"""Bars that are fetched of a new series."""


class SmallExchange:
    """An exchange of its own time.

    Args:
        symbols: Its contracts.
    """

    def __init__(self, *symbols: str) -> None:
        self.symbols = symbols
        self.now_ms = START
        self.klines = KlineServer(0)
        self.spoil: Callable[[str, dict[str, str]], web.StreamResponse | None] = lambda path, query: None
        self.pause_s = 0.0
        self.at_once = self.most_at_once = 0

    @property
    def asked(self) -> list[dict[str, str]]:
        """What klines were asked for."""
        return self.klines.asked

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer as a server does, or as `spoil` says."""
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.pause_s)
        self.at_once -= 1
        spoilt = self.spoil(request.path, dict(request.query))
        if spoilt is not None:
            return spoilt
        if request.path.endswith("time"):
            return web.json_response({"serverTime": self.now_ms})
        if request.path.endswith("exchangeInfo"):
            return web.json_response({"symbols": [contract(symbol) for symbol in self.symbols]})
        return self.klines(request)


def contract(symbol: str, **changes: Any) -> dict[str, Any]:
    """Return a row of exchangeInfo."""
    kind = {"status": "TRADING", "contractType": "PERPETUAL", "pair": symbol, "quoteAsset": "USDT"}
    return {"symbol": symbol, "pricePrecision": 2, "quantityPrecision": 3, "onboardDate": 1, **kind, **changes}


def fetch(
    exchange: SmallExchange, path: Path, *names: str, concurrency: int = 4, since_ms: int | None = None
) -> Outcome:
    """Let the data service fetch these intervals of all symbols."""
    historian = HistorianConfig(concurrency=concurrency, bars_per_interval={"default": DEPTH})

    async def main() -> Outcome:
        async with http_server(exchange.handle) as port:
            config = Config(exchange=ExchangeConfig(rest_url=f"http://127.0.0.1:{port}"), historian=historian)
            return await fetch_history(config, path, Wish(None, names, since_ms), lambda *_: None)

    return asyncio.run(main())


def stored(path: Path, symbol: str, interval: str = "1m") -> Any:
    """Return the stored bars of a series."""
    reader = ArchiveReader(path)
    try:
        return reader.read_series(symbol, interval, limit=10_000)
    finally:
        reader.close()
