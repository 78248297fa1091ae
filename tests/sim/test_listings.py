from __future__ import annotations

from dataclasses import replace
from typing import Any

from klshm.sim.events import ContractEvent
from klshm.sim.listings import Listings
from klshm.sim.market import Market, MarketOptions
from tests.sim.client import Session, WebSocket, client, fault, get, klines, stream
from tests.sim.helpers import START_MS, specs
from tests.support.exchange import exchange


MINUTE_MS = 60_000


async def told(ws: WebSocket, symbol: str, status: str) -> list[Any]:
    """Return what `!contractInfo` tells of a symbol until it has a status."""
    events: list[Any] = []
    while not events or events[-1]["cs"] != status:
        message = await ws.receive_json()
        if message["e"] == "contractInfo" and message["s"] == symbol:
            events.append(message)
    return events


async def listed(session: Session) -> dict[str, Any]:
    return {row["symbol"]: row for row in (await get(session, "exchangeInfo"))[1]["symbols"]}


def test_a_symbol_comes_and_goes_and_comes_again() -> None:
    async def body(session: Session) -> None:
        names = ("!contractInfo", "freshusdt@kline_1m", "freshusdt@kline_1h", "freshusdt@aggTrade")
        async with stream(session, "/market/ws", *names) as ws:
            _, answer = await fault(session, name="list_symbol", symbol="freshusdt", delay_s=1, flip_ms=900)
            onboard_ms = answer["result"]["onboard_ms"]
            assert (await listed(session))["FRESHUSDT"]["status"] == "PENDING_TRADING"
            assert (await get(session, "klines", symbol="FRESHUSDT", interval="1m"))[1]["code"] == -1122
            events = await told(ws, "FRESHUSDT", "TRADING")
            assert [event["cs"] for event in events] == ["PENDING_TRADING"] * 4 + ["TRADING"]
            [tiered] = [event for event in events[:-1] if event["bks"]]  # when, depends on the load of the machine
            assert isinstance(tiered["bks"][0]["mmr"], float) and {event["st"] for event in events} == {1}
            assert events[-2]["E"] > events[-1]["ot"] == onboard_ms == events[-1]["E"] - 900
            seen: set[str] = set()
            while seen < {"1m", "1h", "aggTrade"}:
                message = await ws.receive_json()
                seen.add(message["k"]["i"] if message["e"] == "kline" else message["e"])
                first_ms = message["T"] if message["e"] == "aggTrade" and len(seen) == 1 else message["E"]
            assert first_ms > onboard_ms
            [first] = await klines(session, "FRESHUSDT", startTime=0, limit=1)
            assert onboard_ms - MINUTE_MS < first[0] and first[0] % MINUTE_MS == 0 and first[8] > 0
            await leave(session, ws)
        # The same name once more is a new listing with a history of its own.
        _, answer = await fault(session, name="list_symbol", symbol="FRESHUSDT", delay_s=0, flip_ms=0)
        again = (await listed(session))["FRESHUSDT"]
        assert again["onboardDate"] == answer["result"]["onboard_ms"] > onboard_ms
        assert (await fault(session, name="list_symbol", symbol="FRESHUSDT"))[0] == 400
        async with stream(session, "/market/ws", "freshusdt@aggTrade") as ws:
            assert (await ws.receive_json())["s"] == "FRESHUSDT"

    async def leave(session: Session, ws: WebSocket) -> None:
        gone = {"symbol": "FRESHUSDT", "delay_s": 0.5, "status": "CLOSE", "vanish_s": 0.5}
        delivery_ms = (await fault(session, name="delist_symbol", **gone))[1]["result"]["delivery_ms"]
        assert (await listed(session))["FRESHUSDT"]["deliveryDate"] == delivery_ms
        events = await told(ws, "FRESHUSDT", "CLOSE")
        assert [event["cs"] for event in events] == ["TRADING", "CLOSE"]
        assert {event["dt"] for event in events} == {delivery_ms} and events[-1]["E"] == delivery_ms
        while "FRESHUSDT" in (found := await listed(session)):
            assert found["FRESHUSDT"]["status"] == "CLOSE"
        ended = await klines(session, "FRESHUSDT")
        assert ended and ended[-1][0] <= delivery_ms
        await ws.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 2})
        while "result" not in (message := await ws.receive_json()):
            assert message["e"] == "contractInfo" or message["E"] <= delivery_ms + 200, "streams fall silent"
        assert "freshusdt@aggTrade" in message["result"]

    with exchange("--symbols", "2", "--rate", "20") as market:
        client(market.port, body)


def test_brackets_are_told_of_coin_margined_contracts_too() -> None:
    async def body(session: Session) -> None:
        async with stream(session, "/market/ws", "!contractInfo") as ws:
            for symbol, side in (("BTCUSDT", 1), ("BTCUSD_PERP", 2)):
                await fault(session, name="brackets", symbol=symbol)
                event = await ws.receive_json()
                assert (event["s"], event["cs"], event["st"]) == (symbol, "TRADING", side) and event["bks"]
        assert (await fault(session, name="brackets", symbol="NOPE"))[0] == 400

    with exchange("--symbols", "1", "--rate", "1") as market:
        client(market.port, body)


def test_rows_of_a_delisted_symbol_end_or_go_on_flat() -> None:
    async def body(session: Session) -> None:
        async with stream(session, "/market/ws", "!contractInfo") as ws:
            await fault(session, name="delist_symbol", symbol="BTCUSDT", delay_s=0)
            await told(ws, "BTCUSDT", "SETTLING")
        await fault(session, name="clock_step", step_ms=3 * MINUTE_MS)
        last = (await klines(session, limit=1))[0]
        now_ms = (await get(session, "time"))[1]["serverTime"]
        behind.append((now_ms - last[0]) // MINUTE_MS)
        assert behind[-1] or last[8] == 0

    behind: list[int] = []
    for switch in ("stop", "flat"):
        options = ("--symbols", "1", "--rate", "5", "--start-at", "2026-11-20T12:00:01Z", "--settled-rows", switch)
        with exchange(*options) as market:
            client(market.port, body)
    assert behind == [3, 0]


def test_the_calendar_of_the_catalogue_is_kept() -> None:
    few = [replace(spec, trades_per_s=0.001) for spec in specs(1, 1.0)]
    market = Market(few, START_MS, MarketOptions())
    Listings(market, lambda _: None).plan(few)
    [quarterly] = [spec for spec in few if spec.contract_type == "CURRENT_QUARTER"]
    assert quarterly.delivery_ms % 86_400_000 == 8 * 3_600_000
    events = [event for event in market.advance(quarterly.delivery_ms) if isinstance(event, ContractEvent)]
    assert [(e.instrument.spec.symbol, e.status) for e in events] == [
        *[("SOONUSDT", "PENDING_TRADING")] * 2,
        ("SOONUSDT", "TRADING"),
        (quarterly.symbol, "SETTLING"),
    ]
    assert events[2].event_ms == market.instruments["SOONUSDT"].spec.onboard_ms + 300
    assert events[3].event_ms == quarterly.delivery_ms
