"""The exchange's own SDK: its models check every field that they know."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from binance_common.configuration import ConfigurationRestAPI, ConfigurationWebSocketStreams
from binance_common.errors import BadRequestError, RateLimitBanError, TooManyRequestsError
from binance_sdk_derivatives_trading_usds_futures.derivatives_trading_usds_futures import DerivativesTradingUsdsFutures

from tests.support.exchange import Exchange


def sdk(market: Exchange) -> Any:
    """Return a client whose addresses alone are changed."""
    return DerivativesTradingUsdsFutures(
        config_rest_api=ConfigurationRestAPI(api_key="", api_secret="", base_path=market.rest_url, timeout=10_000),
        config_ws_streams=ConfigurationWebSocketStreams(stream_url=f"ws://127.0.0.1:{market.port}"),
    )


def test_markets_and_time(market: Exchange) -> None:
    rest = sdk(market).rest_api
    assert abs(rest.check_server_time().data().server_time - market.now_ms()) < 5_000
    info = rest.exchange_information().data()
    raw = market.get("/fapi/v1/exchangeInfo")
    assert [found.symbol for found in info.symbols] == [row["symbol"] for row in raw["symbols"]]
    btc = info.symbols[0]
    assert (btc.contract_type, btc.status, btc.price_precision, btc.onboard_date) == (
        "PERPETUAL", "TRADING", 2, raw["symbols"][0]["onboardDate"],
    )  # fmt: skip


def test_klines_continuous_klines_and_trades(market: Exchange) -> None:
    rest = sdk(market).rest_api
    raw = market.get("/fapi/v1/klines", symbol="BTCUSDT", interval="1h", limit=3)
    rows = rest.kline_candlestick_data(symbol="BTCUSDT", interval="1h", limit=3).data()
    assert [list(row)[:2] for row in rows] == [row[:2] for row in raw]
    continuous = rest.continuous_contract_kline_candlestick_data(
        pair="BTCUSDT", contract_type="PERPETUAL", interval="1h", limit=3
    ).data()
    assert list(continuous[0]) == list(rows[0])
    trades = rest.compressed_aggregate_trades_list(symbol="BTCUSDT", limit=5).data()
    again = rest.compressed_aggregate_trades_list(symbol="BTCUSDT", from_id=trades[0].a, limit=5).data()
    assert [(t.a, t.p, t.q, t.f, t.l, t.T, t.m) for t in again] == [(t.a, t.p, t.q, t.f, t.l, t.T, t.m) for t in trades]
    used = rest.check_server_time().rate_limits
    assert used and used[0].count > 0


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"symbol": "NOPE", "interval": "1m"}, "Invalid symbol."),
        ({"symbol": "BTCUSDT", "interval": "7m"}, "Invalid interval."),
        ({"symbol": "SOONUSDT", "interval": "1m"}, "Invalid symbol status."),
        ({"symbol": "BTCUSDT", "interval": "1m", "limit": 1501}, "'limit' is not valid"),
    ],
)
def test_errors(market: Exchange, query: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequestError, match=message):
        sdk(market).rest_api.kline_candlestick_data(**query)


@pytest.mark.parametrize(("status", "error"), [(429, TooManyRequestsError), (418, RateLimitBanError)])
def test_limits(market: Exchange, status: int, error: type[Exception]) -> None:
    market.fault(name="http_status", status=status, path="time")
    with pytest.raises(error):
        sdk(market).rest_api.check_server_time()


def converse(market: Exchange, body: Callable[[Any], Awaitable[None]]) -> None:
    async def main() -> None:
        streams = await sdk(market).websocket_streams.create_connection()
        try:
            await body(streams)
        finally:
            await streams.close_connection(close_session=True)

    asyncio.run(main())


def test_streams_are_subscribed_listed_and_left(market: Exchange) -> None:
    async def body(streams: Any) -> None:
        seen: asyncio.Queue[Any] = asyncio.Queue()
        handles = [
            await streams.aggregate_trade_streams(symbol="btcusdt"),
            await streams.kline_candlestick_streams(symbol="btcusdt", interval="1m"),
            await streams.continuous_contract_kline_candlestick_streams(
                pair="btcusdt", contract_type="perpetual", interval="1m"
            ),
            await streams.all_market_mini_tickers_stream(),
        ]
        for handle in handles:
            handle.on("message", seen.put_nowait)
        kinds: set[str] = set()
        while kinds != {"aggTrade", "kline", "continuous_kline", "24hrMiniTicker"}:
            message = await seen.get()
            rows = getattr(message, "root", message)
            kinds.add((rows[0] if isinstance(rows, list) else rows).e)
        names = {
            "btcusdt@aggTrade", "btcusdt@kline_1m", "btcusdt_perpetual@continuousKline_1m", "!miniTicker@arr",
        }  # fmt: skip
        assert set((await streams.list_subscribe())["result"]) == names
        await handles[0].unsubscribe()
        assert set((await streams.list_subscribe())["result"]) == names - {"btcusdt@aggTrade"}

    converse(market, body)
