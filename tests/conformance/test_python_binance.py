"""python-binance: REST, multiplexed and single sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from binance import AsyncClient, BinanceSocketManager
from binance.exceptions import BinanceAPIException

from tests.support.exchange import Exchange


def converse(market: Exchange, monkeypatch: pytest.MonkeyPatch, body: Callable[[Any, Any], Awaitable[None]]) -> None:
    """Run a conversation of a client whose addresses alone are changed."""
    monkeypatch.setattr(AsyncClient, "FUTURES_URL", f"{market.rest_url}/fapi")
    monkeypatch.setattr(BinanceSocketManager, "FSTREAM_URL", f"ws://127.0.0.1:{market.port}/")

    async def main() -> None:
        client = AsyncClient()
        try:
            await body(client, BinanceSocketManager(client))
        finally:
            await client.close_connection()

    asyncio.run(main())


def test_rest(market: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(client: Any, sockets: Any) -> None:
        assert await client.futures_ping() == {}
        assert abs((await client.futures_time())["serverTime"] - market.now_ms()) < 5_000
        info = await client.futures_exchange_info()
        assert {row["symbol"] for row in info["symbols"]} >= {"BTCUSDT", "币安人生USDT", "XAUUSDT"}
        rows = await client.futures_klines(symbol="BTCUSDT", interval="5m", limit=7)
        assert len(rows) == 7 and len(rows[0]) == 12
        query = {"pair": "XAUUSDT", "contractType": "TRADIFI_PERPETUAL", "interval": "1h", "limit": 3}
        assert (await client.futures_continuous_klines(**query))[:2] == (
            await client.futures_klines(symbol="XAUUSDT", interval="1h", limit=3)
        )[:2]
        trades = await client.futures_aggregate_trades(symbol="BTCUSDT", limit=5)
        again = await client.futures_aggregate_trades(symbol="BTCUSDT", fromId=trades[0]["a"], limit=5)
        assert again == trades and [row["a"] - trades[0]["a"] for row in trades] == [0, 1, 2, 3, 4]
        assert (await client.futures_ticker(symbol="BTCUSDT"))["symbol"] == "BTCUSDT"

    converse(market, monkeypatch, body)


def test_a_day_of_history_in_pages(market: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(client: Any, sockets: Any) -> None:
        end_ms = market.now_ms() // 60_000 * 60_000 - 60_000
        start_ms = end_ms - 1_799 * 60_000
        rows = await client.futures_historical_klines("ETHUSDT", "1m", start_ms, end_ms)
        assert [row[0] for row in rows] == list(range(start_ms, end_ms + 1, 60_000))

    converse(market, monkeypatch, body)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"symbol": "NOPE", "interval": "1m"}, -1121),
        ({"symbol": "BTCUSDT", "interval": "1s"}, -1120),
        ({"symbol": "SOONUSDT", "interval": "1m"}, -1122),
        ({"symbol": "BTCUSDT", "interval": "1m", "startTime": 2, "endTime": 1}, -1023),
    ],
)
def test_errors(market: Exchange, monkeypatch: pytest.MonkeyPatch, query: dict[str, object], code: int) -> None:
    async def body(client: Any, sockets: Any) -> None:
        with pytest.raises(BinanceAPIException) as caught:
            await client.futures_klines(**query)
        assert (caught.value.status_code, caught.value.code) == (400, code)

    converse(market, monkeypatch, body)


def test_a_ban_is_told(market: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(client: Any, sockets: Any) -> None:
        for status in (429, 418):
            market.fault(name="http_status", status=status)
            with pytest.raises(BinanceAPIException) as caught:
                await client.futures_ping()
            assert (caught.value.status_code, caught.value.code) == (status, -1003)

    converse(market, monkeypatch, body)


def test_sockets(market: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(client: Any, sockets: Any) -> None:
        names = ["btcusdt@aggTrade", "btcusdt@kline_1m", "!miniTicker@arr"]
        async with sockets.futures_multiplex_socket(names) as socket:
            seen: dict[str, Any] = {}
            while set(seen) != set(names):
                message = await socket.recv()
                seen[message["stream"]] = message["data"]
        assert seen["btcusdt@aggTrade"]["e"] == "aggTrade" and seen["btcusdt@kline_1m"]["k"]["i"] == "1m"
        assert {row["st"] for row in seen["!miniTicker@arr"]} == {1, 2}
        async with sockets.kline_futures_socket("BTCUSDT", "1m") as socket:
            message = await socket.recv()
            assert (message["e"], message["ps"], message["ct"]) == ("continuous_kline", "BTCUSDT", "PERPETUAL")
        async with sockets.aggtrade_futures_socket("BTCUSDT") as socket:
            message = await socket.recv()
            assert message.get("data", message)["e"] == "aggTrade"

    converse(market, monkeypatch, body)
