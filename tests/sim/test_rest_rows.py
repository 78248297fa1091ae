"""Rows of klines and aggTrades by REST, and where there are none, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.sim.client import Session, client, fault, get, klines, stream
from tests.support.exchange import exchange


MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with exchange("--symbols", "6", "--rate", "300", "--weight-limit", "100000") as market:
        yield market.port


def test_a_gap_has_no_rows_and_a_page_goes_on_behind_it(port: int) -> None:
    async def body(session: Session) -> None:
        whole = await klines(session, limit=60)
        assert len(whole) == 60
        _, answer = await fault(session, name="gap", symbol="BTCUSDT", ago_minutes=40, minutes=10, seconds=600)
        minute_ms = answer["now_ms"] - answer["now_ms"] % MINUTE_MS
        first_ms, stop_ms = minute_ms - 40 * MINUTE_MS, minute_ms - 30 * MINUTE_MS
        kept = [row for row in whole if not first_ms <= row[0] < stop_ms]
        assert len(kept) == 50
        page = await klines(session, startTime=kept[0][0], limit=47)
        assert page == kept[:47]
        assert await klines(session, endTime=kept[-2][0], limit=49) == kept[:-1]
        assert await klines(session, startTime=first_ms, endTime=stop_ms - 1) == []
        # A longer interval is absent only where all of it is.
        fives = [row[0] for row in await klines(session, interval="5m", startTime=kept[0][0])]
        every = range(fives[0], fives[-1], 5 * MINUTE_MS)
        absent = [at for at in every if at not in fives]
        assert absent and absent == [at for at in every if first_ms <= at <= stop_ms - 5 * MINUTE_MS]
        assert len(await klines(session, "ETHUSDT", limit=60)) == 60
        await fault(session, name="clear")
        assert [row[0] for row in await klines(session, startTime=whole[0][0], limit=60)] == [row[0] for row in whole]

    client(port, body)


def test_invalid_symbol_status_of_a_listed_symbol(port: int) -> None:
    async def body(session: Session) -> None:
        await fault(session, name="invalid_status", symbol="ETHUSDT", seconds=600)
        refusal = {"code": -1122, "msg": "Invalid symbol status."}
        assert await get(session, "klines", symbol="ETHUSDT", interval="1m") == (400, refusal)
        assert await klines(session)
        await fault(session, name="clear")
        assert await klines(session, "ETHUSDT")

    client(port, body)


def test_pending_symbols_refuse_or_are_empty() -> None:
    async def body(session: Session) -> None:
        seen.append(await get(session, "klines", symbol="SOONUSDT", interval="1m"))

    seen: list[Any] = []
    for switch in ("refuse", "empty"):
        with exchange("--symbols", "1", "--pending-klines", switch) as market:
            client(market.port, body)
    assert seen == [(400, {"code": -1122, "msg": "Invalid symbol status."}), (200, [])]


def test_klines_serve_what_exchange_info_does_not_list(port: int) -> None:
    async def body(session: Session) -> None:
        _, info = await get(session, "exchangeInfo")
        listed = {row["symbol"]: row for row in info["symbols"]}
        for symbol in ("BTCUSD_PERP", "LUNAUSDT"):
            assert symbol not in listed and len(await klines(session, symbol, "1h", limit=10)) == 10
        assert (await klines(session, "LUNAUSDT", limit=1))[0][6] < listed["OMGUSDT"]["deliveryDate"]
        [quarterly] = [row for row in listed.values() if row["contractType"] == "CURRENT_QUARTER"]
        query = {"contractType": "CURRENT_QUARTER", "interval": "1d", "limit": 3, "pair": quarterly["pair"]}
        _, continuous = await get(session, "continuousKlines", **query)
        assert continuous[:2] == (await klines(session, quarterly["symbol"], "1d", limit=3))[:2]

    client(port, body)


def test_pages_by_id_hold_everything_where_pages_by_time_lose_rows(port: int) -> None:
    keys = ("a", "p", "q", "nq", "f", "l", "T", "m")

    async def body(session: Session) -> None:
        async with stream(session, "/market/ws", "btcusdt@aggTrade") as ws:
            live = [await ws.receive_json() for _ in range(400)]
        live = [{key: frame[key] for key in keys} for frame in live]
        assert len({row["T"] for row in live}) < len(live), "many rows share a millisecond"

        async def pages(**start: int) -> list[Any]:
            found: list[Any] = []
            while not found or found[-1]["a"] < live[-1]["a"]:
                _, page = await get(session, "aggTrades", symbol="BTCUSDT", limit=7, **start)
                found += page
                start = {"fromId": page[-1]["a"] + 1} if "fromId" in start else {"startTime": page[-1]["T"] + 1}
            return [row for row in found if row["a"] <= live[-1]["a"]]

        assert await pages(fromId=live[0]["a"]) == live
        by_time = await pages(startTime=live[0]["T"])
        assert len([row for row in by_time if row["a"] >= live[0]["a"]]) < len(live)
        span = {"startTime": live[10]["T"], "endTime": live[200]["T"]}
        _, found = await get(session, "aggTrades", symbol="BTCUSDT", limit=1000, **span)
        assert found == [row for row in live if span["startTime"] <= row["T"] <= span["endTime"]]

    client(port, body)


def test_agg_trades_reach_back_so_far_and_no_further() -> None:
    async def body(session: Session) -> None:
        async with stream(session, "/market/ws", "btcusdt@aggTrade") as ws:
            first = await ws.receive_json()
            by_id, by_time = {"fromId": first["a"]}, {"startTime": first["T"]}
            for query in (by_id, by_time):
                assert (await get(session, "aggTrades", symbol="BTCUSDT", **query))[0] == 200
            while (await ws.receive_json())["E"] <= first["T"] + 1_500:
                pass
        message = {"code": -4166, "msg": "Search window is restricted to recent 2 days only."}
        for query in (by_id, by_time, {"endTime": first["T"]}):
            assert await get(session, "aggTrades", symbol="BTCUSDT", **query) == (400, message)

    with exchange("--symbols", "1", "--rate", "100", "--agg-reach", "1.5") as market:
        client(market.port, body)


def test_a_span_of_an_hour_is_refused_where_documents_are_the_rule(port: int) -> None:
    async def body(session: Session) -> None:
        now_ms = (await get(session, "time"))[1]["serverTime"]
        hour = {"symbol": "BTCUSDT", "startTime": now_ms - 3_600_000, "endTime": now_ms}
        seen.append((await get(session, "aggTrades", **hour))[1])
        assert (await get(session, "aggTrades", **{**hour, "startTime": now_ms - 3_599_999}))[0] == 200

    seen: list[Any] = []
    client(port, body)
    with exchange("--symbols", "1", "--rules", "measured") as market:
        client(market.port, body)
    assert seen[0]["code"] == -1127 and isinstance(seen[1], list)
