"""Third-party clients against the simulator, unmodified but for the address; skipped where they are not installed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.exchange import exchange


def test_ccxt() -> None:
    pro = pytest.importorskip("ccxt.pro", reason="ccxt is not installed")

    async def body(port: int) -> None:
        client = pro.binanceusdm({"options": {"fetchMarkets": {"types": ["linear"]}, "fetchCurrencies": False}})
        for key, path in (("fapiPublic", "v1"), ("fapiPublicV2", "v2"), ("fapiPublicV3", "v3")):
            client.urls["api"][key] = f"http://127.0.0.1:{port}/fapi/{path}"
        client.urls["api"]["ws"]["linear"] = f"ws://127.0.0.1:{port}/ws"
        try:
            assert "BTC/USDT:USDT" in await client.load_markets()
            assert len(await client.fetch_ohlcv("BTC/USDT:USDT", "1h", limit=5)) == 5
            assert await client.watch_ohlcv("BTC/USDT:USDT", "1m")
            assert await client.watch_trades("BTC/USDT:USDT")
            assert await client.watch_trades("ETH/USDT:USDT", params={"name": "aggTrade"})
            with pytest.raises(Exception, match="-1121"):
                await client.fapiPublicGetKlines({"symbol": "NOPE", "interval": "1m"})
        finally:
            await client.close()

    with exchange("--symbols", "5") as market:
        asyncio.run(body(market.port))


def test_python_binance() -> None:
    binance: Any = pytest.importorskip("binance", reason="python-binance is not installed")

    async def body(port: int) -> None:
        binance.AsyncClient.FUTURES_URL = f"http://127.0.0.1:{port}/fapi"
        binance.BinanceSocketManager.FSTREAM_URL = f"ws://127.0.0.1:{port}/"
        client = binance.AsyncClient()
        try:
            assert len(await client.futures_klines(symbol="BTCUSDT", interval="5m", limit=7)) == 7
            assert (await client.futures_exchange_info())["symbols"]
            manager = binance.BinanceSocketManager(client)
            async with manager.futures_multiplex_socket(["btcusdt@aggTrade", "btcusdt@kline_1m"]) as socket:
                seen = set()
                while len(seen) < 2:
                    seen.add((await socket.recv())["stream"])
            async with manager.kline_futures_socket("BTCUSDT", "1m") as socket:
                assert (await socket.recv())["e"] == "continuous_kline"
        finally:
            await client.close_connection()

    with exchange("--symbols", "5") as market:
        asyncio.run(body(market.port))


def test_official_sdk() -> None:
    package = "binance_sdk_derivatives_trading_usds_futures.derivatives_trading_usds_futures"
    sdk: Any = pytest.importorskip(package, reason="the official SDK is not installed")
    configuration: Any = pytest.importorskip("binance_common.configuration")

    async def body(client: Any) -> None:
        streams = await client.websocket_streams.create_connection()
        seen: asyncio.Queue[str] = asyncio.Queue()
        for stream in (
            await streams.aggregate_trade_streams(symbol="btcusdt"),
            await streams.kline_candlestick_streams(symbol="btcusdt", interval="1m"),
        ):
            stream.on("message", lambda message: seen.put_nowait(message.e))
        kinds: set[str] = set()
        while kinds != {"aggTrade", "kline"}:
            kinds.add(await seen.get())
        await streams.close_connection(close_session=True)

    with exchange("--symbols", "5") as market:
        client = sdk.DerivativesTradingUsdsFutures(
            config_rest_api=configuration.ConfigurationRestAPI(
                api_key="", api_secret="", base_path=market.rest_url
            ),
            config_ws_streams=configuration.ConfigurationWebSocketStreams(stream_url=f"ws://127.0.0.1:{market.port}"),
        )
        rest = client.rest_api
        assert len(rest.kline_candlestick_data(symbol="BTCUSDT", interval="1m", limit=3).data()) == 3
        assert rest.compressed_aggregate_trades_list(symbol="BTCUSDT", limit=2).data()
        assert len(rest.exchange_information().data().symbols) > 5
        with pytest.raises(Exception, match="Invalid symbol"):
            rest.kline_candlestick_data(symbol="NOPE", interval="1m")
        asyncio.run(body(client))
