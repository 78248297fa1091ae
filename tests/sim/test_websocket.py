"""Streams, seen by a real client."""

from __future__ import annotations

from typing import Any

import aiohttp

from klshm.sim.intervals import MINUTE_MS
from tests.sim.client import Session, client, fault, stream
from tests.support.exchange import exchange


def test_payloads_and_key_order(port: int) -> None:
    agg_keys = ["e", "E", "a", "s", "p", "q", "nq", "f", "l", "T", "m", "st"]
    k_keys = ["t", "T", "s", "i", "f", "L", "o", "c", "h", "l", "v", "n", "x", "q", "V", "Q", "B"]

    async def body(session: Session) -> None:
        names = (
            "btcusdt@aggTrade", "btcusdt@kline_1m", "btcusdt@kline_1w", "btcusdt_perpetual@continuousKline_1m",
            "!miniTicker@arr", "!ticker@arr", "btcusdt@miniTicker", "btcusdt@ticker", "币安人生usdt@kline_1m",
            "BTCUSDT@aggTrade",
        )  # fmt: skip
        seen: dict[str, Any] = {}
        async with stream(session, "/market/stream", *names) as ws:
            while not set(names) - {"币安人生usdt@kline_1m", "BTCUSDT@aggTrade"} <= set(seen):
                message = await ws.receive_json()
                assert list(message) == ["stream", "data"]
                seen[message["stream"]] = message["data"]
        assert "BTCUSDT@aggTrade" not in seen
        assert list(seen["btcusdt@aggTrade"]) == agg_keys
        assert list(seen["btcusdt@kline_1m"]) == ["e", "E", "s", "k"]
        assert list(seen["btcusdt@kline_1m"]["k"]) == k_keys
        week = seen["btcusdt@kline_1w"]["k"]
        assert week["n"] > 1_000_000 and week["f"] < seen["btcusdt@kline_1m"]["k"]["f"]
        assert list(seen["btcusdt_perpetual@continuousKline_1m"]) == ["e", "E", "ps", "ct", "k"]
        assert list(seen["btcusdt_perpetual@continuousKline_1m"]["k"]) == [key for key in k_keys if key != "s"]
        assert {row["st"] for row in seen["!miniTicker@arr"]} == {1, 2}
        row = next(row for row in seen["!ticker@arr"] if row["s"] == "BTCUSDT")
        assert list(seen["btcusdt@ticker"]) == list(row)
        assert row["O"] % MINUTE_MS == 0 and row["L"] >= seen["btcusdt@aggTrade"]["f"] - 10_000
        async with session.get("/sim/state") as response:
            state = await response.json()
        assert state["symbols"]["BTCUSDT"]["last_trade_id"] >= row["L"]

    client(port, body)


def test_unrouted_and_wrong_routes_ack_and_stay_silent(port: int) -> None:
    async def body(session: Session) -> None:
        for path in ("/ws", "/stream", "/public/ws", "/private/stream?streams=btcusdt@aggTrade"):
            async with stream(session, path, "btcusdt@aggTrade", "btcusdt@kline_1m") as ws:
                async with stream(session, "/market/ws/btcusdt@aggTrade/0") as other:
                    assert (await other.receive_json())["e"] == "aggTrade"
                await ws.send_json({"method": "LIST_SUBSCRIPTIONS", "id": "x"})
                assert "btcusdt@aggTrade" in (await ws.receive_json())["result"]
        async with stream(session, "/public/ws", "btcusdt@trade") as ws:
            assert (await ws.receive_json())["X"] == "MARKET"

    client(port, body)


def test_too_many_messages_and_streams_close_with_1008(port: int) -> None:
    async def body(session: Session) -> None:
        async with stream(session, "/market/ws") as ws:
            for number in range(40):
                await ws.send_json({"method": "LIST_SUBSCRIPTIONS", "id": number})
            answers = 0
            while (message := await ws.receive()).type == aiohttp.WSMsgType.TEXT:
                answers += 1
            assert 15 <= answers < 20 and (message.data, message.extra) == (1008, "Too many requests")
        async with stream(session, "/market/ws") as ws:
            await ws.send_json({"method": "SUBSCRIBE", "params": [f"a{n}@aggTrade" for n in range(1025)], "id": 1})
            assert (await ws.receive_json())["error"]["code"] == 4
            message = await ws.receive()
            assert (message.data, message.extra) == (1008, "Invalid request")

    client(port, body)


def test_freeze_holds_everything_back_then_sends_it() -> None:
    async def body(session: Session) -> None:
        async with stream(session, "/market/ws", "btcusdt@aggTrade") as ws:
            first = await ws.receive_json()
            await fault(session, name="freeze", seconds=1)
            ids = [first["a"]] + [(await ws.receive_json())["a"] for _ in range(60)]
            assert ids == list(range(first["a"], first["a"] + 61))

    with exchange("--symbols", "1", "--rate", "100") as market:
        client(market.port, body)


def test_ping_and_pong_deadline() -> None:
    async def body(session: Session) -> None:
        async with session.ws_connect("/market/ws", autoping=False) as ws:
            await ws.ping(b"mine")
            kinds = []
            while (message := await ws.receive()).type in (aiohttp.WSMsgType.PING, aiohttp.WSMsgType.PONG):
                kinds.append(message.type)
                if message.type == aiohttp.WSMsgType.PING:
                    assert int(bytes(message.data)) > 1_700_000_000_000
            # No pong was sent, so the server ends the connection.
            assert message.type == aiohttp.WSMsgType.CLOSE and aiohttp.WSMsgType.PONG in kinds
            assert aiohttp.WSMsgType.PING in kinds

    with exchange("--symbols", "1", "--time-factor", "0.005") as market:
        client(market.port, body)
