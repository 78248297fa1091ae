"""REST, seen by a real client."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from klshm.sim.intervals import DAY_MS, INTERVALS, MINUTE_MS, next_open_ms
from tests.sim.client import Session, client, get, stream
from tests.support.exchange import exchange


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


def test_weights_are_enforced() -> None:
    async def body(session: Session) -> None:
        statuses = [(await get(session, "klines", symbol="BTCUSDT", interval="1m"))[0] for _ in range(20)]
        assert statuses == [200] * 4 + [429] * 10 + [418] * 6
        async with session.get("/fapi/v1/ping") as response:
            assert int(response.headers["Retry-After"]) > 0

    with exchange("--symbols", "1", "--weight-limit", "20", "--start-at", "2026-11-22T23:59:01Z") as market:
        client(market.port, body)
