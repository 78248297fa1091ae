"""ccxt and its pro streams: unified markets, candles, trades, errors and subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import ccxt.pro
import pytest

from tests.support.exchange import Exchange


BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"


def converse(market: Exchange, body: Callable[[Any], Awaitable[None]]) -> None:
    """Run a conversation of a client whose addresses alone are changed."""

    async def main() -> None:
        client = ccxt.pro.binanceusdm({"options": {"fetchMarkets": {"types": ["linear"]}, "fetchCurrencies": False}})
        api = client.urls["api"]
        for key, version in (("fapiPublic", "v1"), ("fapiPublicV2", "v2"), ("fapiPublicV3", "v3")):
            api[key] = f"{market.rest_url}/fapi/{version}"
        # Newer versions call the USD-M side linear, older ones future.
        for key in {"linear", "future"} & set(api["ws"]):
            api["ws"][key] = f"ws://127.0.0.1:{market.port}/ws"
        try:
            await body(client)
        finally:
            await client.close()

    asyncio.run(main())


def test_markets_and_time(market: Exchange) -> None:
    async def body(client: Any) -> None:
        markets = await client.load_markets()
        btc = markets[BTC]
        assert btc["swap"] and btc["linear"] and btc["active"] and btc["id"] == "BTCUSDT"
        assert btc["precision"] == {**btc["precision"], "price": 0.1, "amount": 0.001}
        assert btc["created"] == market.get("/fapi/v1/exchangeInfo")["symbols"][0]["onboardDate"]
        [quarterly] = [found for found in markets.values() if found["future"]]
        assert quarterly["expiry"] > client.milliseconds()
        assert markets["币安人生/USDT:USDT"]["id"] == "币安人生USDT" and "ETH/USDC:USDC" in markets
        assert not markets["OMG/USDT:USDT"]["active"] and not markets["SOON/USDT:USDT"]["active"]
        assert abs(await client.fetch_time() - market.now_ms()) < 5_000

    converse(market, body)


def test_candles_trades_and_tickers(market: Exchange) -> None:
    async def body(client: Any) -> None:
        raw = market.get("/fapi/v1/klines", symbol="BTCUSDT", interval="1h", limit=5)
        candles = await client.fetch_ohlcv(BTC, "1h", since=raw[0][0], limit=4)
        assert candles == [[row[0], *(float(cell) for cell in row[1:6])] for row in raw[:4]]
        week = await client.fetch_ohlcv("币安人生/USDT:USDT", "1w", limit=3)
        assert len(week) == 3
        trades = await client.fetch_trades(BTC, limit=20)
        assert len(trades) == 20 and all(trade["symbol"] == BTC and trade["amount"] > 0 for trade in trades)
        pages = await client.fetch_trades(BTC, limit=10, params={"fromId": int(trades[10]["id"])})
        assert [trade["id"] for trade in pages] == [trade["id"] for trade in trades[10:]]
        tickers = await client.fetch_tickers([BTC, ETH])
        assert set(tickers) == {BTC, ETH} and tickers[BTC]["quoteVolume"] > 0

    converse(market, body)


def test_errors(market: Exchange) -> None:
    async def body(client: Any) -> None:
        for query, error, code in (
            ({"symbol": "NOPE", "interval": "1m"}, ccxt.BadSymbol, "-1121"),
            ({"symbol": "BTCUSDT", "interval": "1s"}, ccxt.BadRequest, "-1120"),
            ({"symbol": "BTCUSDT"}, ccxt.BadRequest, "-1102"),
            ({"symbol": "BTCUSDT", "interval": "1m", "limit": 1501}, ccxt.BadRequest, "-1130"),
        ):
            with pytest.raises(error, match=code):
                await client.fapiPublicGetKlines(query)
        for status, error in (
            (429, ccxt.DDoSProtection),
            (418, ccxt.DDoSProtection),
            (403, ccxt.ExchangeNotAvailable),
            (503, ccxt.ExchangeNotAvailable),
        ):
            market.fault(name="http_status", status=status, path="klines")
            with pytest.raises(error, match=str(status)):
                await client.fapiPublicGetKlines({"symbol": "BTCUSDT", "interval": "1m"})
        assert await client.fapiPublicGetPing() == {}

    converse(market, body)


def test_streams_are_watched_and_left(market: Exchange) -> None:
    async def body(client: Any) -> None:
        def streams() -> list[tuple[str, int]]:
            return sorted((c["route"], c["streams"]) for c in market.get("/sim/state")["connections"])

        await client.load_markets()
        for symbol, kind in ((BTC, "trade"), (ETH, "aggTrade")):
            [trade, *_] = await client.watch_trades(symbol, params={"name": kind})
            assert (trade["symbol"], trade["info"]["e"]) == (symbol, kind) and trade["side"] in ("buy", "sell")
        assert streams() == [("market", 1), ("public", 1)]
        watched = await client.watch_ohlcv_for_symbols([[BTC, "1m"], [ETH, "5m"]])
        assert set(watched) <= {BTC, ETH}
        candle = (await client.watch_ohlcv(BTC, "1m"))[-1]
        assert candle[0] % 60_000 == 0 and candle[3] <= candle[4] <= candle[2]
        ticker = await client.watch_ticker(BTC)
        assert ticker["symbol"] == BTC and ticker["baseVolume"] > 0
        before = sum(count for _, count in streams())
        await client.un_watch_trades(BTC)
        await client.un_watch_ohlcv(BTC, "1m")
        assert sum(count for _, count in streams()) < before

    converse(market, body)
