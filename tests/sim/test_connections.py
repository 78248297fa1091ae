"""Connections over real WebSocket: control messages, routes, pings and ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from tests.sim.client import Session, client, fault, get, stream, until
from tests.support.exchange import exchange


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with exchange("--symbols", "16", "--rate", "400") as market:
        yield market.port


@pytest.mark.parametrize(
    ("sent", "reply"),
    [
        ({"method": "SUBSCRIBE", "params": ["nope@x", "BTCUSDT@depth@250ms"], "id": 7}, {"result": None, "id": 7}),
        ({"method": "UNSUBSCRIBE", "params": ["never@was"], "id": "0-a-f"}, {"result": None, "id": "0-a-f"}),
        ({"method": "SUBSCRIBE", "params": [], "id": 1}, 2),
        ({"method": "SUBSCRIBE", "params": ["a@b"]}, 2),
        ({"method": "SUBSCRIBE", "params": "a@b", "id": 1}, 2),
        ({"method": "HELLO", "id": 1}, 2),
        ({"id": 1}, 2),
        ({"method": "GET_PROPERTY", "params": ["speed"], "id": 1}, 0),
        ({"method": "SET_PROPERTY", "params": ["combined", "yes"], "id": 1}, 1),
        ("{", 3),
    ],
)
def test_replies(port: int, sent: object, reply: Any) -> None:
    async def body(session: Session) -> None:
        async with stream(session, "/market/ws") as ws:
            await ws.send_str(sent if isinstance(sent, str) else json.dumps(sent))
            found = await ws.receive_json()
            if isinstance(reply, dict):
                assert found == reply
            else:
                assert set(found) == {"error", "id"} and set(found["error"]) == {"code", "msg"}
                assert found["error"]["code"] == reply

    client(port, body)


def test_subscriptions_and_properties_belong_to_one_connection(port: int) -> None:
    async def body(session: Session) -> None:
        async with (
            stream(session, "/market/ws/0", "btcusdt@aggTrade") as ws,
            stream(session, "/market/stream") as other,
        ):
            await other.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 3})
            assert await other.receive_json() == {"result": [], "id": 3}
            assert (await ws.receive_json())["e"] == "aggTrade"
            await ws.send_json({"method": "SET_PROPERTY", "params": ["combined", True], "id": 4})
            await until(ws, lambda m: m.get("id") == 4)
            assert (await ws.receive_json())["stream"] == "btcusdt@aggTrade"
            await ws.send_json({"method": "UNSUBSCRIBE", "params": ["btcusdt@aggTrade"], "id": 5})
            await until(ws, lambda m: m.get("id") == 5)
            await ws.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 6})
            assert await ws.receive_json() == {"result": [], "id": 6}

    client(port, body)


def test_names_in_urls_and_names_of_other_letters(port: int) -> None:
    async def body(session: Session) -> None:
        name = "币安人生usdt@kline_1m"
        for path in (f"/market/ws/{quote(name)}/17", f"/market/stream?streams=btcusdt@trade/{quote(name)}"):
            async with stream(session, path) as ws:
                await ws.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 1})
                assert name in (await until(ws, lambda m: "result" in m))["result"]
                message = await ws.receive_json()
                assert message.get("data", message)["s"] == "币安人生USDT"
        async with stream(session, "/market/ws", name) as ws:
            assert (await ws.receive_json())["s"] == "币安人生USDT"

    client(port, body)


def test_without_a_route_only_public_streams_are_delivered(port: int) -> None:
    async def body(session: Session) -> None:
        names = ("btcusdt@aggTrade", "btcusdt@kline_1m", "!miniTicker@arr", "btcusdt@trade")
        for path in ("/ws", "/stream"):
            async with stream(session, path, *names) as ws:
                for _ in range(300):
                    message = await ws.receive_json()
                    assert message.get("data", message)["e"] == "trade"

    client(port, body)


def test_forced_trades_are_seen_on_trade_alone() -> None:
    async def body(session: Session) -> None:
        async with stream(session, "/public/ws", "btcusdt@trade") as ws:
            trades = [await ws.receive_json() for _ in range(600)]
            _, told = await get(session, "trades", symbol="BTCUSDT", limit=1000)
        forced = [trade for trade in trades if trade["X"] != "MARKET"]
        assert {trade["X"] for trade in forced} == {"ADL", "INSURANCE_FUND"}
        assert [trade["t"] for trade in trades] == sorted({trade["t"] for trade in trades})
        ids = {row["id"] for row in told}
        seen = [trade for trade in trades if min(ids) <= trade["t"] <= max(ids)]
        assert seen and all((trade["t"] in ids) == (trade["X"] == "MARKET") for trade in seen)

    with exchange("--symbols", "1", "--rate", "400", "--forced-share", "0.1") as market:
        client(market.port, body)


def test_a_connection_ends_at_its_greatest_age() -> None:
    async def body(session: Session) -> None:
        async with session.ws_connect("/market/ws") as ws:
            message = await ws.receive()
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1001)

    with exchange("--symbols", "1", "--rate", "1", "--time-factor", "0.00001") as market:
        client(market.port, body)


def test_answered_pings_keep_a_connection() -> None:
    async def body(session: Session) -> None:
        async with session.ws_connect("/market/ws", autoping=False) as ws:
            for _ in range(4):
                message = await ws.receive()
                assert message.type == aiohttp.WSMsgType.PING
                now_ms = (await get(session, "time"))[1]["serverTime"]
                assert abs(int(bytes(message.data)) - now_ms) < 60_000
                await ws.pong(message.data)
            await ws.pong(b"unsolicited")
            await ws.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 1})
            while (message := await ws.receive()).type == aiohttp.WSMsgType.PING:
                await ws.pong(message.data)
            assert json.loads(message.data) == {"result": [], "id": 1}

    # A ping every two seconds, the pong within 6 s.
    with exchange("--symbols", "1", "--rate", "1", "--time-factor", "0.01") as market:
        client(market.port, body)


@pytest.mark.parametrize("step_ms", [-7_200_000, 7_200_000])
def test_a_step_of_the_clock_neither_ages_nor_throttles_a_connection(step_ms: int) -> None:
    async def body(session: Session) -> None:
        async with stream(session, "/market/stream", "!miniTicker@arr") as ws:
            await fault(session, name="clock_step", step_ms=step_ms)
            for _ in range(2):  # once a second, when connections are looked at too
                assert (await ws.receive_json())["stream"] == "!miniTicker@arr"
            for number in range(3, 8):
                await ws.send_json({"method": "LIST_SUBSCRIPTIONS", "id": number})
                assert await until(ws, lambda m, number=number: m.get("id") == number)

    # 1.44 minutes is the greatest age here, 10.8 s the time between pings.
    with exchange("--symbols", "1", "--rate", "1", "--time-factor", "0.001") as market:
        client(market.port, body)


def test_handshakes_are_refused_by_any_status(port: int) -> None:
    async def body(session: Session) -> None:
        for status in (503, 429):
            await fault(session, name="refuse", seconds=600, status=status)
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await session.ws_connect("/market/ws")
            assert caught.value.status == status
        await fault(session, name="clear")
        async with session.ws_connect("/market/ws"):
            pass

    client(port, body)


def test_what_is_sent_after_the_limit_is_discarded_and_the_close_frame_arrives(port: int) -> None:
    async def body(session: Session) -> None:
        async with session.ws_connect("/market/ws", autoclose=False) as ws:
            for number in range(2_000):
                await ws.send_json({"method": "LIST_SUBSCRIPTIONS", "id": number})
            answers = 0
            while (message := await ws.receive()).type == aiohttp.WSMsgType.TEXT:
                answers += 1
            assert answers >= 15 and (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1008)

    client(port, body)


def test_a_client_that_does_not_answer_a_close_frame_is_dropped() -> None:
    async def body(session: Session) -> None:
        ws = await session.ws_connect("/market/ws", autoclose=False)
        await fault(session, name="close", code=1001, reason="bye")
        message = await ws.receive()
        assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, 1001, "bye")
        while True:
            async with session.get("/sim/state") as response:
                if not (await response.json())["connections"]:
                    break
            await asyncio.sleep(0.05)

    with exchange("--symbols", "1", "--rate", "1") as market:
        client(market.port, body)
