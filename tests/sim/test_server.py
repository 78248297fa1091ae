"""The routes for tests: faults on demand, while clients are connected."""

from __future__ import annotations

import aiohttp
import pytest

from tests.sim.client import Session, client, fault, get, stream
from tests.support.exchange import exchange


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
