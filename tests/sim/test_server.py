"""The simulator as a process, seen by a real client."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from klshm.sim.intervals import DAY_MS, INTERVALS, MINUTE_MS, next_open_ms
from tests.support.exchange import exchange
from tests.support.processes import PROJECT, is_alive, wait_for


@pytest.fixture(scope="module")
def port() -> Any:
    with exchange("--symbols", "16", "--rate", "200", "--start-at", "2026-11-22T23:59:50Z") as market:
        yield market.port


Session = aiohttp.ClientSession


def client(port: int, body: Callable[[Session], Awaitable[None]]) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            await body(session)

    asyncio.run(main())


async def get(session: Session, path: str, **params: object) -> tuple[int, Any]:
    query = {name: str(value) for name, value in params.items()}
    async with session.get(f"/fapi/v1/{path}", params=query) as response:
        assert response.content_type == "application/json"
        return response.status, json.loads(await response.read())


async def fault(session: Session, **parameters: object) -> Any:
    async with session.post("/sim/faults", json=parameters) as response:
        return response.status, await response.json()


@asynccontextmanager
async def stream(session: Session, path: str, *names: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with session.ws_connect(path) as ws:
        if names:
            await ws.send_json({"method": "SUBSCRIBE", "params": names, "id": 1})
            assert await ws.receive_json() == {"result": None, "id": 1}
        yield ws


def test_exchange_info(port: int) -> None:
    async def body(session: Session) -> None:
        _, info = await get(session, "exchangeInfo")
        rows = {row["symbol"]: row for row in info["symbols"]}
        counted = [
            row
            for row in rows.values()
            if row["status"] == "TRADING" and row["quoteAsset"] == "USDT" and row["contractType"].endswith("PERPETUAL")
        ]
        assert len([row for row in counted if row["contractType"] in ("PERPETUAL", "TRADIFI_PERPETUAL")]) == 16
        assert {"币安人生USDT", "XAUUSDT", "1000PEPEUSDT", "BTCUSDT"} <= set(rows)
        assert rows["XAUUSDT"]["contractType"] == "TRADIFI_PERPETUAL"
        assert {row["status"] for row in rows.values()} == {"TRADING", "SETTLING", "PENDING_TRADING"}
        assert {"CURRENT_QUARTER", "PREDICTION_PERPETUAL"} <= {row["contractType"] for row in rows.values()}
        btc = rows["BTCUSDT"]
        assert (btc["pricePrecision"], btc["filters"][0]["tickSize"]) == (2, "0.10"[:3])
        async with session.get("/fapi/v1/exchangeInfo", auto_decompress=False) as response:
            assert response.headers["Content-Encoding"] == "gzip"
            assert json.loads(gzip.decompress(await response.read())) == info
            assert "X-MBX-USED-WEIGHT-1M" in response.headers

    client(port, body)


@pytest.mark.parametrize(
    ("path", "params", "code"),
    [
        ("klines", {"interval": "1m"}, -1102),
        ("klines", {"symbol": "BTCUSDT"}, -1102),
        ("klines", {"symbol": "NONEUSDT", "interval": "1m"}, -1121),
        ("klines", {"symbol": "BTCUSDT", "interval": "1s"}, -1120),
        ("klines", {"symbol": "BTCUSDT", "interval": "1m", "limit": 1501}, -1130),
        ("klines", {"symbol": "BTCUSDT", "interval": "1m", "limit": "x"}, -1100),
        ("klines", {"symbol": "BTCUSDT", "interval": "1m", "startTime": 2, "endTime": 1}, -1023),
        ("klines", {"symbol": "SOONUSDT", "interval": "1m"}, -1122),
        ("continuousKlines", {"pair": "XAUUSDT", "contractType": "PERPETUAL", "interval": "1m"}, -1121),
        ("aggTrades", {"symbol": "BTCUSDT", "startTime": 1_700_000_000_000}, -4166),
        ("aggTrades", {"symbol": "BTCUSDT", "fromId": 1}, -4166),
        ("aggTrades", {"symbol": "BTCUSDT", "limit": 1001}, -1130),
    ],
)
def test_refusals(port: int, path: str, params: dict[str, object], code: int) -> None:
    async def body(session: Session) -> None:
        status, answer = await get(session, path, **params)
        assert (status, answer["code"]) == (400, code)
        assert set(answer) == {"code", "msg"}

    client(port, body)


def test_klines_ranges_and_shapes(port: int) -> None:
    async def body(session: Session) -> None:
        async def rows(**params: object) -> Any:
            status, found = await get(session, "klines", **{"symbol": "BTCUSDT", "interval": "1m", **params})
            assert status == 200, found
            return found

        now_ms = (await get(session, "time"))[1]["serverTime"]
        last = await rows(limit=5)
        assert len(last) == 5 and last[-1][0] in (now_ms - now_ms % MINUTE_MS, now_ms - now_ms % MINUTE_MS + MINUTE_MS)
        assert [type(cell) for cell in last[0]] == [int, str, str, str, str, str, int, str, int, str, str, str]
        opened = last[1][0]
        assert (await rows(startTime=opened, limit=2)) == last[1:3]
        assert (await rows(startTime=opened - 1, limit=1))[0] == last[1]
        assert (await rows(startTime=opened + 1, limit=1))[0] == last[2]
        assert (await rows(endTime=opened, limit=2)) == [last[0], last[1]]
        assert (await rows(startTime=opened, endTime=last[2][0])) == last[1:3]
        assert (await rows(startTime=now_ms + DAY_MS)) == []
        first = await rows(startTime=0, limit=2)
        assert first[1][0] == first[0][0] + MINUTE_MS and first[0][0] < now_ms - 300 * DAY_MS
        assert (await rows(symbol="btcusdt", startTime=opened, limit=1))[0] == last[1]
        assert len(await rows(symbol="币安人生USDT", limit=1500)) == 1500
        for interval in INTERVALS:
            found = await rows(interval=interval, limit=3)
            for row in found:
                assert row[6] == next_open_ms(interval, row[0]) - 1
        week = (await rows(interval="1w", limit=1))[0]
        assert (week[0] - 4 * DAY_MS) % (7 * DAY_MS) == 0
        query = {"pair": "XAUUSDT", "contractType": "TRADIFI_PERPETUAL", "interval": "1h", "limit": 2}
        _, found = await get(session, "continuousKlines", **query)
        assert found[0] == (await rows(symbol="XAUUSDT", interval="1h", limit=2))[0]
        settled = await rows(symbol="OMGUSDT", interval="1h", limit=1)
        assert settled and settled[0][6] < now_ms

    client(port, body)


def test_agg_trades_tickers_trades(port: int) -> None:
    async def body(session: Session) -> None:
        async def aggs(**params: object) -> Any:
            status, found = await get(session, "aggTrades", symbol="BTCUSDT", **params)
            assert status == 200, found
            return found

        async with stream(session, "/market/ws", "btcusdt@aggTrade") as ws:
            while (await ws.receive_json())["e"] != "aggTrade":
                pass
            for _ in range(20):
                seen = await ws.receive_json()
        recent = await aggs(limit=20)
        assert list(recent[0]) == ["a", "p", "q", "nq", "f", "l", "T", "m"]
        assert [row["a"] for row in recent] == list(range(recent[0]["a"], recent[0]["a"] + 20))
        assert (await aggs(fromId=recent[3]["a"], limit=4)) == recent[3:7]
        at_ms = recent[5]["T"]
        window = await aggs(startTime=at_ms, endTime=at_ms)
        assert window and all(row["T"] == at_ms for row in window)
        same = await aggs(fromId=seen["a"], limit=1)
        assert {key: same[0][key] for key in ("a", "p", "q", "nq", "f", "l", "T", "m")} == {
            key: seen[key] for key in ("a", "p", "q", "nq", "f", "l", "T", "m")
        }
        _, one = await get(session, "ticker/24hr", symbol="BTCUSDT")
        assert one["symbol"] == "BTCUSDT" and one["count"] > 0
        _, all_of_them = await get(session, "ticker/24hr")
        assert len(all_of_them) == 19 and "OMGUSDT" not in {row["symbol"] for row in all_of_them}
        _, trades = await get(session, "trades", symbol="BTCUSDT", limit=3)
        assert len(trades) == 3 and trades[0]["id"] < trades[1]["id"]

    client(port, body)


def test_payloads_and_key_order(port: int) -> None:
    agg_keys = ["e", "E", "a", "s", "p", "q", "nq", "f", "l", "T", "m", "st"]
    k_keys = ["t", "T", "s", "i", "f", "L", "o", "c", "h", "l", "v", "n", "x", "q", "V", "Q", "B"]

    async def body(session: Session) -> None:
        names = (
            "btcusdt@aggTrade", "btcusdt@kline_1m", "btcusdt@kline_1w", "btcusdt_perpetual@continuousKline_1m",
            "!miniTicker@arr", "!ticker@arr", "btcusdt@miniTicker", "币安人生usdt@kline_1m", "BTCUSDT@aggTrade",
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


def test_control_endpoint_and_faults(port: int) -> None:
    async def body(session: Session) -> None:
        assert (await fault(session, name="nonsense"))[0] == 400
        assert (await fault(session, name="http_status", status=403, path="ping"))[0] == 200
        async with session.get("/fapi/v1/ping") as response:
            assert response.status == 403 and response.content_type == "text/html"
        assert await get(session, "ping") == (200, {})
        await fault(session, name="http_status", status=429, path="ping")
        status, answer = await get(session, "ping")
        assert status == 429 and answer["code"] == -1003
        async with stream(session, "/market/ws", "!contractInfo", "btcusdt@aggTrade") as ws:
            await fault(session, name="mute", stream="aggTrade", seconds=600)
            await fault(session, name="list_symbol", symbol="FRESHUSDT", delay_s=0.2)
            states = []
            while states[-1:] != ["TRADING"]:
                message = await ws.receive_json()
                if message["e"] == "contractInfo":
                    assert message["s"] == "FRESHUSDT"
                    states.append(message["cs"])
            assert states[0] == "PENDING_TRADING"
            await fault(session, name="clear")
            while (await ws.receive_json())["e"] != "aggTrade":
                pass
            await fault(session, name="delist_symbol", symbol="FRESHUSDT", delay_s=0)
            while (message := await ws.receive_json())["e"] != "contractInfo" or message["cs"] != "SETTLING":
                pass
            _, info = await get(session, "exchangeInfo")
            assert {row["symbol"]: row["status"] for row in info["symbols"]}["FRESHUSDT"] == "SETTLING"
            await fault(session, name="close")
            while (await ws.receive()).type == aiohttp.WSMsgType.TEXT:
                pass
            assert ws.closed

    client(port, body)


def test_refused_handshakes_and_a_clock_step() -> None:
    async def body(session: Session) -> None:
        before_ms = (await get(session, "time"))[1]["serverTime"]
        await fault(session, name="clock_step", step_ms=3_600_000)
        assert (await get(session, "time"))[1]["serverTime"] >= before_ms + 3_600_000
        await fault(session, name="refuse", seconds=600)
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect("/market/ws")
        async with session.get("/dapi/v1/ping") as response:
            assert response.status == 200 and "X-MBX-USED-WEIGHT-1M" in response.headers

    with exchange("--symbols", "1", "--rate", "10") as market:
        client(market.port, body)


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


def test_weights_are_enforced() -> None:
    async def body(session: Session) -> None:
        statuses = [(await get(session, "klines", symbol="BTCUSDT", interval="1m"))[0] for _ in range(20)]
        assert statuses == [200] * 4 + [429] * 10 + [418] * 6
        async with session.get("/fapi/v1/ping") as response:
            assert int(response.headers["Retry-After"]) > 0

    with exchange("--symbols", "1", "--weight-limit", "20", "--start-at", "2026-11-22T23:59:01Z") as market:
        client(market.port, body)


def test_quick_end_and_one_ready_line() -> None:
    command = [sys.executable, "-m", "klshm.sim", "--symbols", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    assert set(ready) == {"event", "port", "start_ms", "symbols"} and ready["symbols"] == 1
    assert abs(ready["start_ms"] - time.time() * 1000) < 60_000
    with socket.create_connection(("127.0.0.1", ready["port"])):
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert process.stdout.read() == ""
    process.stdout.close()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--start-at", "soon"], 2, "expected ISO-8601"),
        (["--symbols", "0"], 2, "expected a whole number from 1"),
        (["--faults", "other"], 2, "expected one of standard"),
        (["--replay", "none.csv"], 1, "none.csv: cannot be read"),
        (["--replay", "none.csv", "--start-at", "1"], 2, "expected one of them"),
        (["--rate", "0"], 2, "expected a positive number"),
    ],
)
def test_bad_arguments(arguments: list[str], code: int, message: str) -> None:
    command = [sys.executable, "-m", "klshm.sim", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)
    assert done.returncode == code and message in done.stderr and done.stdout == ""
    assert "Traceback" not in done.stderr


def test_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [sys.executable, "-m", "klshm.sim", "--port", str(taken.getsockname()[1]), "--symbols", "1"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)
    assert done.returncode == 1 and "cannot listen on 127.0.0.1" in done.stderr and "--port 0" in done.stderr


def test_exits_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-m', 'klshm.sim', '--symbols', '1', '--exit-with-parent'],"
        " stdout=subprocess.PIPE, text=True)\n"
        "p.stdout.readline()\nprint(p.pid, flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, check=True)
    pid = int(done.stdout)
    wait_for(lambda: not is_alive(pid), 60)
